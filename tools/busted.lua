-- busted under the interpreter that runs this file, whatever "lua" in PATH is; options are those of .busted.
require "busted.runner" { standalone = false }
