local function joins(one, two)
  return one.t == "Str" and two.t == "Str" and one.text:find("%d$") and (two.text:find("^%%") or two.text:find("^±"))
end

-- A number stays in one line with the sign behind it.
function Inlines(inlines)
  for i = 2, #inlines - 1 do
    if inlines[i].t == "Space" and joins(inlines[i - 1], inlines[i + 1]) then inlines[i] = pandoc.Str("\u{a0}") end
  end
  return inlines
end

-- A token such as " Mary" stays in one line: a line must not break at the space that belongs to it.
function Code(code)
  if #code.text <= 16 then code.classes:insert("ioi-short") end
  return code
end
