import "date"

option task = {name: "battfleet m1_count late-2d", every: 1h, offset: 20s}

first = date.truncate(t: date.sub(d: 2d, from: now()), unit: 1m)

from(bucket: "battfleet/raw")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^(battery|cell|solar|load|charger|analog|collector|soc)$/)
  |> filter(fn: (r) => r._field !~ /^(model|version|detail)$/)
  |> aggregateWindow(every: 1m, fn: count, createEmpty: false, timeSrc: "_start")
  |> toFloat()
  |> to(bucket: "battfleet/m1_count")
