# make help shows the targets and the variables.

LUA_VERSION = 5.4
PREFIX ?= /usr/local
LUADIR ?= $(PREFIX)/share/lua/$(LUA_VERSION)
LIBDIR ?= $(PREFIX)/lib/lua/$(LUA_VERSION)
BINDIR ?= $(PREFIX)/bin
INSTALL ?= install
PKG_CONFIG ?= pkg-config

comma := ,
BUILD := build$(if $(SANITIZE),/san-$(subst $(comma),-,$(SANITIZE)))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

# ---- what is there ------------------------------------------------------------------------------------------------

core_src := $(sort $(wildcard csrc/core/*.c))
lua_src := $(sort $(wildcard csrc/lua/*.c))
test_src := $(sort $(wildcard spec/core/test_*.c))
fuzz_src := $(sort $(wildcard spec/fuzz/fuzz_*.c))
bench_src := $(sort $(wildcard bench/*.c))

core_obj := $(core_src:csrc/%.c=$(BUILD)/obj/%.o)
lua_obj := $(lua_src:csrc/%.c=$(BUILD)/obj/%.o)
core_lib := $(BUILD)/libsaturn_core.a
module := $(BUILD)/saturn/core.so
tests := $(test_src:spec/core/%.c=$(BUILD)/spec/%)
fuzzers := $(fuzz_src:spec/fuzz/%.c=build/fuzz/%)
lua_fuzzers := $(filter build/fuzz/fuzz_lua_%,$(fuzzers))

# ---- flags: of this project, of the platform, of the libraries ------------------------------------------------------

# once,NAME,command: the command's output, found at the first use and kept.
once = $(eval $(1) := $(strip $(shell $(2))))$($(1))
# pkg,--cflags|--libs,names to try,fallback
pkg = for p in $(2); do $(PKG_CONFIG) --exists $$p 2>/dev/null && exec $(PKG_CONFIG) $(1) $$p; done; echo $(3)

OS := $(shell uname -s)
ifeq ($(OS),Darwin)
  shared := -bundle -undefined dynamic_lookup
  feature := -D_DARWIN_C_SOURCE
else
  shared := -shared
  direct := -fno-plt # calls of Lua's API, of which values take several each, without a detour
  feature := -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE
endif

LUA ?= $(call once,LUA,for l in lua5.4 lua54 lua-5.4 lua; do command -v $$l && exit; done; echo lua5.4)
LUA_CFLAGS ?= $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(call once,LUA_CFLAGS,$(call pkg,--cflags,lua5.4 lua-5.4 lua54,\
  -I/usr/include/lua5.4 -I/opt/homebrew/include/lua -I/usr/local/include/lua5.4)))
LUA_LIBS ?= $(call once,LUA_LIBS,$(call pkg,--libs,lua5.4 lua-5.4 lua54,-llua5.4))

zlib_test = printf '\#include <zlib.h>\nint main(void) { return zlibVersion() == 0; }\n' | \
  $(CC) -x c - $$($(call pkg,--cflags --libs,zlib,-lz)) -o /dev/null 2>/dev/null && echo
zlib_cflags = $(call once,zlib_cflags,$(zlib_test) -DHAVE_ZLIB $$($(call pkg,--cflags,zlib,)))
zlib_libs = $(call once,zlib_libs,$(zlib_test) $$($(call pkg,--libs,zlib,-lz)))

lib_cflags = $(call once,lib_cflags,($(call pkg,--cflags,libcurl,)); ($(call pkg,--cflags,libcrypto,)); \
  ($(call pkg,--cflags,msgpack-c msgpack,)); ($(call pkg,--cflags,liblz4,)); ($(call pkg,--cflags,libzstd,)))
base_libs = $(call once,base_libs,($(call pkg,--libs,libcurl,-lcurl)); ($(call pkg,--libs,libcrypto,-lcrypto)); \
  ($(call pkg,--libs,msgpack-c msgpack,-lmsgpackc)); ($(call pkg,--libs,liblz4,-llz4)); \
  ($(call pkg,--libs,libzstd,-lzstd)))
libs = $(base_libs) $(zlib_libs)
# Where luarocks found the libraries: it names the variables, and they come before all else.
rock_cflags := $(addprefix -I,$(sort $(CURL_INCDIR) $(CRYPTO_INCDIR) $(MSGPACK_INCDIR) $(LZ4_INCDIR) $(ZSTD_INCDIR)))
rock_libs := $(addprefix -L,$(sort $(CURL_LIBDIR) $(CRYPTO_LIBDIR) $(MSGPACK_LIBDIR) $(LZ4_LIBDIR) $(ZSTD_LIBDIR)))

CFLAGS ?= -O2 -g
warnings := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
  -Wpointer-arith -Wformat=2
san := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
cflags = -std=c11 $(warnings) $(CFLAGS) -fPIC -fvisibility=hidden $(feature) $(san) -iquote csrc/core $(rock_cflags) \
  $(lib_cflags) $(zlib_cflags) $(CPPFLAGS)
ldflags = $(san) $(LDFLAGS) $(rock_libs)
# The module of the sanitized builds asks spec/support/lua.c for memory, and stays where leak reports can name its lines.
ifneq ($(SANITIZE),)
ifneq ($(OS),Darwin)
  wrapped := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,-z,nodelete
endif
endif

# ---- what must be installed: only the targets that promise so install anything -------------------------------------

goal = $(if $(filter $(1),$(MAKECMDGOALS)),$(2))
needs := $(sort $(call goal,deps,build) $(call goal,demo,build demo) $(call goal,test bench,build test) \
  $(call goal,lint,build lint) $(call goal,fuzz,build fuzz) $(if $(MEMCHECK),memcheck))

.PHONY: ready deps
ready:
	$(if $(needs),@tools/install-deps $(needs))

deps: ready

# ---- build ----------------------------------------------------------------------------------------------------------

.PHONY: all
all: $(module)

# The target is a file of this text, and as old as its last change.
keep = @printf '%s\n' '$(1)' >$@.new; if cmp -s $@.new $@; then rm -f $@.new; else mv $@.new $@; fi

# Holds the compiler and its flags: what was built with others is built again.
flags_now = $(CC) $(cflags) | $(LUA_CFLAGS) $(direct) | $(ldflags) $(wrapped) $(libs)
$(BUILD)/flags: FORCE | ready
	@mkdir -p $(@D)
	$(call keep,$(flags_now))

.PHONY: FORCE
FORCE:
.SECONDARY:

ifneq ($(V),)
  quiet =
else
  quiet = @printf '%-5s %s\n' $(1) $(patsubst $(CURDIR)/%,%,$(2));
endif
# A compile that fails for a header that is not there says what installs it, in one line.
compile = $(CC) $(cflags) $(1) -MMD -MP -c -o $@ $< || { \
  tools/install-deps --check build || echo "make: the build needs more packages: run 'make deps'" >&2; exit 1; }

$(BUILD)/obj/core/%.o: csrc/core/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC,$<) $(call compile,)

$(BUILD)/obj/lua/%.o: csrc/lua/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC,$<) $(call compile,$(LUA_CFLAGS) $(direct))

# The list of members, so that the library is made anew when a source went away.
$(BUILD)/members: FORCE
	@mkdir -p $(@D)
	$(call keep,$(core_obj) $(lua_obj))

$(core_lib): $(core_obj) $(BUILD)/members
	$(call quiet,AR,$@) rm -f $@ && $(AR) rcs $@ $(core_obj)

$(module): $(lua_obj) $(core_lib) $(BUILD)/members
	@mkdir -p $(@D)
	$(call quiet,LD,$@) $(CC) $(shared) $(ldflags) $(wrapped) -o $@ $(lua_obj) $(core_lib) $(libs)

# Bench programs and unit tests in C use the core alone.
$(BUILD)/spec/%: spec/core/%.c $(core_lib) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC,$<) $(CC) $(cflags) -iquote spec/core -MMD -MP -MF $@.d $(ldflags) -o $@ $< $(core_lib) $(libs) -lpthread

# An interpreter with the sanitizers inside, so that the module can be loaded and no other process is concerned.
$(BUILD)/bin/lua: spec/support/lua.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC,$<) $(CC) -std=c11 -g $(san) -rdynamic $(LUA_CFLAGS) -o $@ $< $(LUA_LIBS) -lm
	@ln -sf lua $(@D)/lua5.4

-include $(core_obj:.o=.d) $(lua_obj:.o=.d) $(tests:=.d) $(wildcard build/fuzz/obj/*.d build/fuzz/obj/lua/*.d)

# ---- install --------------------------------------------------------------------------------------------------------

# Lua files and the files the embedded service is made of, with their directories.
installed := $(patsubst lua/%,%,$(sort $(shell find lua -name '*.lua' -o -name '*.py' 2>/dev/null)))

# The command finds the module wherever that is installed.
found = package.path, package.cpath = "$(LUADIR)/?.lua;$(LUADIR)/?/init.lua;" .. package.path, \
  "$(LIBDIR)/?.so;" .. package.cpath

.PHONY: install uninstall
install: all
	@$(INSTALL) -d $(DESTDIR)$(LIBDIR)/saturn $(DESTDIR)$(LUADIR)
	@$(INSTALL) -m 755 $(module) $(DESTDIR)$(LIBDIR)/saturn/core.so
	@set -e; for f in $(installed); do \
	  $(INSTALL) -d $(DESTDIR)$(LUADIR)/$$(dirname $$f); \
	  $(INSTALL) -m 644 lua/$$f $(DESTDIR)$(LUADIR)/$$f; done
	@if [ -f bin/saturn ]; then \
	  $(INSTALL) -d $(DESTDIR)$(BINDIR) && $(INSTALL) -m 755 bin/saturn $(DESTDIR)$(BINDIR)/saturn && \
	  { head -n 1 bin/saturn; echo '$(found)'; tail -n +2 bin/saturn; } >$(DESTDIR)$(BINDIR)/saturn; fi
	@echo "installed in $(DESTDIR)$(LUADIR) and $(DESTDIR)$(LIBDIR)"
	@$(LUA) -e 'require "cjson" require "argparse"' 2>/dev/null || \
	  echo "note: saturn needs the Lua modules cjson and argparse (rocks lua-cjson and argparse, or packages lua-cjson and lua-argparse)"

uninstall:
	@rm -rf $(DESTDIR)$(LIBDIR)/saturn $(DESTDIR)$(LUADIR)/saturn
	@rm -f $(DESTDIR)$(BINDIR)/saturn

# ---- run ------------------------------------------------------------------------------------------------------------

run_env = LUA_PATH='lua/?.lua;lua/?/init.lua;./?.lua;./?/init.lua;;' LUA_CPATH='$(BUILD)/?.so;;'

.PHONY: demo test lint bench fuzz
demo: all
	@$(run_env) tools/run-demo $(LUA)

# Of the C tests those that will run: all, or the one that SPEC names, or none.
wanted_tests = $(if $(SPEC),$(if $(filter spec spec/ spec/core spec/core/,$(SPEC)),$(tests),$(filter \
  $(BUILD)/spec/$(basename $(notdir $(SPEC))),$(tests))),$(tests))

test: all $(wanted_tests) $(if $(SANITIZE),$(BUILD)/bin/lua)
	@$(run_env) BUILD='$(BUILD)' LUA='$(LUA)' SANITIZE='$(SANITIZE)' MEMCHECK='$(MEMCHECK)' DASK='$(DASK)' SPEC='$(SPEC)' tools/run-tests

lint: ready
	@CC_FLAGS='$(filter-out -O2 -g,$(cflags)) $(LUA_CFLAGS) -iquote spec/core' tools/run-lint

bench: all
	@$(run_env) BUILD='$(BUILD)' LUA='$(LUA)' DASK='$(DASK)' tools/run-bench

FUZZ_SECONDS ?= 60
fuzz_flags = -std=c11 -O1 -g $(feature) -fsanitize=address,undefined -fno-sanitize-recover=all -iquote csrc/core $(lib_cflags) \
  $(zlib_cflags)

build/fuzz/obj/%.o: csrc/core/%.c | ready
	@mkdir -p $(@D)
	$(call quiet,CC,$<) clang $(fuzz_flags) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

$(filter-out $(lua_fuzzers),$(fuzzers)): build/fuzz/fuzz_%: spec/fuzz/fuzz_%.c $(core_src:csrc/core/%.c=build/fuzz/obj/%.o)
	@mkdir -p $(@D)
	$(call quiet,CC,$<) clang $(fuzz_flags) -fsanitize=fuzzer -o $@ $^ $(libs)

# The targets of the Lua faces have those and an interpreter inside.
build/fuzz/obj/lua/%.o: csrc/lua/%.c | ready
	@mkdir -p $(@D)
	$(call quiet,CC,$<) clang $(fuzz_flags) $(LUA_CFLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

$(lua_fuzzers): build/fuzz/fuzz_lua_%: spec/fuzz/fuzz_lua_%.c spec/fuzz/lua_state.h \
  $(lua_src:csrc/lua/%.c=build/fuzz/obj/lua/%.o) \
  $(core_src:csrc/core/%.c=build/fuzz/obj/%.o)
	@mkdir -p $(@D)
	$(call quiet,CC,$<) clang $(fuzz_flags) $(LUA_CFLAGS) -fsanitize=fuzzer -o $@ $(filter-out %.h,$^) $(LUA_LIBS) $(libs)

fuzz: $(fuzzers)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/run-fuzz $(fuzzers)

# ---- the rest -------------------------------------------------------------------------------------------------------

.PHONY: clean help
clean:
	@rm -rf build

help:
	@echo "make            build the module in build/"
	@echo "make demo       install what is missing, build, and run examples/demo.lua on a local cluster"
	@echo "make test       install what the tests need and run them all; DASK=2024.12.1 for one release of Dask,"
	@echo "                SPEC=path for one file, SANITIZE=address,undefined for a build with sanitizers,"
	@echo "                MEMCHECK=1 for valgrind (a quarter of an hour for one release)"
	@echo "make install    into PREFIX ($(PREFIX)); LUADIR, LIBDIR, BINDIR and DESTDIR are honoured"
	@echo "make lint       luacheck, gcc and clang with -Werror, syntax of the scripts"
	@echo "make bench      compare with Python's client on the same scheduler; DASK=release"
	@echo "make fuzz       fuzz the decoders; FUZZ_SECONDS=n each"
	@echo "make deps       install the packages the build needs"
	@echo "make clean      remove build/"
	@echo "Variables: CC, CFLAGS, LDFLAGS, LUA, LUA_INCDIR, PREFIX, SANITIZE, MEMCHECK, V=1 to see the commands"
