-- A token such as " Mary" stays in one line: a line must not break at the space that belongs to it.
function Code(code)
  if #code.text <= 16 then code.classes:insert("ioi-short") end
  return code
end
