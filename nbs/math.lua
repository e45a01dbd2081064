-- Formulas as MathML without the copy of their source that Pandoc puts beside each: search would find them twice.
local options = pandoc.WriterOptions({html_math_method = "mathml"})

function Math(formula)
  local text = pandoc.write(pandoc.Pandoc({pandoc.Plain({formula})}), "html", options)
  text = text:gsub("<annotation.-</annotation>", ""):gsub("</?semantics>", "")
  return pandoc.RawInline("html", string.format('<span class="math %s">%s</span>',
    formula.mathtype == "DisplayMath" and "display" or "inline", text))
end
