-- A table that is wider than a phone scrolls in a box of its own, and stays a table to those who hear it.
function Table(made)
  return pandoc.Div({made}, {class = "table-responsive"})
end
