-- In a checkout these come from the system's packages ("make deps" installs them), which luarocks does not know of.
rocks_provided = {
  ["lua-cjson"] = "2.1.0-1",
  argparse = "0.7.1-1",
}
