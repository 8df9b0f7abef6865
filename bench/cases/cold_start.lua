local client = require("saturn").client(arg[1])
assert(client:submit("operator.add", 1, 2):result() == 3)
client:close()
