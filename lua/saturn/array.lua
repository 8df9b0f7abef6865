--- Typed n-dimensional arrays, NumPy's on the Lua side: `saturn.array{1, 2, 3}`. See docs/arrays.md.
--
-- An array is a userdata over memory that several arrays may share: rows, slices and transposes are views, and so is
-- an array that came from a cluster of the bytes that were received.

local core = require("saturn.core").array
local errors = require "saturn.error"

---@alias saturn.Shape integer|integer[] one length, or a list with the length of each dimension
---@alias saturn.Slice {[1]: integer?, [2]: integer?, [3]: integer?} first, last (inclusive), step

---@class saturn.Array
---@field shape integer[] length of each dimension
---@field strides integer[] bytes between neighbours in each dimension
---@field ndim integer dimensions
---@field size integer elements
---@field nbytes integer bytes of all elements
---@field itemsize integer bytes of one element
---@field dtype string NumPy's type string, "<f8"; of records the list of their fields
---@field typename string the type's name for people, "float64"
---@field unit string? of datetime64 and timedelta64: "ns", "25s", "generic"
---@field fields {name: string, dtype: string, offset: integer, shape: integer[]}[]? of records
---@field writable boolean whether set, fill and a[i] = v may change it
---@field contiguous "C"|"F"|false how the elements lie in memory, if without gaps
---@field get fun(self: saturn.Array, ...: integer): any the element at these indices
---@field set fun(self: saturn.Array, value: any, ...: integer): saturn.Array changes the element at these indices
---@field fill fun(self: saturn.Array, value: any): saturn.Array changes every element
---@field slice fun(self: saturn.Array, ...: saturn.Slice|integer|nil): saturn.Array a view of a part
---@field transpose fun(self: saturn.Array, ...: integer): saturn.Array a view, dimensions reversed or in this order
---@field reshape fun(self: saturn.Array, ...: saturn.Shape): saturn.Array a view when contiguous, else a copy
---@field view fun(self: saturn.Array, dtype: string): saturn.Array the same bytes as elements of another type
---@field field fun(self: saturn.Array, name: string): saturn.Array a view of one field of all records
---@field copy fun(self: saturn.Array): saturn.Array an array of its own memory, in C order
---@field astype fun(self: saturn.Array, dtype: string): saturn.Array a copy with its elements converted
---@field totable fun(self: saturn.Array): any nested tables
---@field tostring fun(self: saturn.Array): string the bytes of the elements in C order
---@field equal fun(self: saturn.Array, other: saturn.Array): boolean the same shape and equal elements
---@field sum fun(self: saturn.Array): number|table
---@field mean fun(self: saturn.Array): number|table
---@field min fun(self: saturn.Array): number|boolean
---@field max fun(self: saturn.Array): number|boolean
---@field pointer fun(self: saturn.Array): lightuserdata the address of the first element
---@field close fun(self: saturn.Array) lets go of the memory at once; views of it stay
---@field [integer] any an element, or a row as a view; nil when there is none
---@operator len: integer

---@class saturn.arraylib
---@overload fun(values: any, options?: string|{dtype: string?, shape: saturn.Shape?}): saturn.Array
local M = {}

--- The value of a datetime64 or timedelta64 element that is not a time.
M.nat = math.mininteger

--- An array of zeros (of objects: of the integer 0).
---@type fun(shape: saturn.Shape, dtype?: string): saturn.Array
M.zeros = core.zeros

--- An array over a copy of a string's bytes, which must be exactly those of the shape (default: all in one dimension).
---@type fun(bytes: string, dtype: string, shape?: saturn.Shape): saturn.Array
M.from_string = core.from_string

--- True for an array.
---@type fun(value: any): boolean
M.is = core.is

local OPEN_OPTIONS = { dtype = "string", shape = "table|integer", offset = "integer", mode = "string" }
local MODES = { r = true, ["r+"] = true, c = true }

--- Maps a file into memory: an `.npy` file as what it says, another as elements of `dtype` (default bytes) from
--- `offset` on. Mode "r" (default) is read-only, "r+" writes to the file, "c" changes the memory alone.
---@param path string
---@param options? {dtype: string?, shape: saturn.Shape?, offset: integer?, mode: "r"|"r+"|"c"|nil}
---@return saturn.Array
function M.open(path, options)
  if type(path) ~= "string" then errors.misuse(2, "a path must be string, not %s", type(path)) end
  options = errors.options(options, OPEN_OPTIONS)
  local mode = options.mode or "r"
  if not MODES[mode] then errors.misuse(2, "option 'mode' must be 'r', 'r+' or 'c', not '%s'", mode) end
  return (errors.check(core.open(path, options.dtype, options.shape, options.offset, mode)))
end

--- Reads an `.npy` file into memory of its own.
---@param path string
---@return saturn.Array
function M.load_npy(path)
  if type(path) ~= "string" then errors.misuse(2, "a path must be string, not %s", type(path)) end
  return (errors.check(core.load_npy(path)))
end

--- Writes an array to a new `.npy` file.
---@param path string
---@param array saturn.Array
function M.save_npy(path, array)
  if type(path) ~= "string" then errors.misuse(2, "a path must be string, not %s", type(path)) end
  if not core.is(array) then errors.misuse(2, "save_npy needs an array, not %s", type(array)) end
  errors.check(core.save_npy(path, array))
end

return setmetatable(M, { __call = core.call, __name = "saturn.arraylib" })
