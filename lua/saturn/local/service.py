#!/usr/bin/env python3
"""The embedded Saturn service: the cluster API on loopback, with a Dask LocalCluster behind it.

Prints one JSON line on standard output: the address and the token once it listens, {"failed"} when
it could not, or {"error", "hint"} and exit code 3 when this Python cannot run it. It ends at the end of its standard
input, on SIGTERM or SIGINT, and on POST /_shutdown.

This file holds only what any Python can parse, so that an old one gives an answer and not a traceback;
the work is in service_app.py.
"""
import json
import os
import sys


def refuse(error, hint):
    sys.stdout.write(json.dumps({"error": error, "hint": hint}) + "\n")
    sys.stdout.flush()
    sys.exit(3)


def install_hint(missing):
    debian = {"distributed": "python3-distributed", "cryptography": "python3-cryptography"}
    pip = {"distributed": '"dask[distributed]"', "cryptography": "cryptography"}
    prefix = getattr(sys, "base_prefix", sys.prefix)
    if sys.prefix == prefix and sys.executable.startswith("/usr/bin/") and os.path.exists("/usr/bin/apt"):
        return "apt install " + " ".join(debian[name] for name in missing)
    return sys.executable + " -m pip install " + " ".join(pip[name] for name in missing)


def check():
    if sys.version_info < (3, 9):
        refuse(
            "Python %d.%d is too old for the local service; it needs 3.9 or newer" % sys.version_info[:2],
            "apt install python3 python3-distributed python3-cryptography",
        )
    import importlib.util

    # Looking a module up costs nothing beside importing it, and the service should answer soon.
    missing = [name for name in ("distributed", "cryptography") if importlib.util.find_spec(name) is None]
    if missing:
        names = {"distributed": "Dask (the module distributed)"}
        names = " and no ".join(names.get(name, name) for name in missing)
        refuse("%s has no %s" % (sys.executable, names), install_hint(missing))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    # Workers get this sys.path: the caller's directory belongs there, and this one does not.
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    check()
    sys.path.insert(0, here)
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    import service_app

    sys.dont_write_bytecode = write_bytecode
    sys.path.remove(here)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    sys.path.append(os.path.join(here, "worker_path"))
    # Without a file, multiprocessing does not run this module again in each worker.
    del sys.modules["__main__"].__file__
    service_app.main(sys.argv[1:])


if __name__ == "__main__":
    main()
