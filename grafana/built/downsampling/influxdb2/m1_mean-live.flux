import "date"

option task = {name: "battfleet m1_mean live", every: 1m, offset: 20s}

first = date.truncate(t: date.sub(d: 10m, from: now()), unit: 1m)

from(bucket: "battfleet/raw")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^(battery|cell|solar|load|charger|analog|collector|soc)$/)
  |> filter(fn: (r) => r._field !~ /^(model|version|detail)$/)
  |> aggregateWindow(every: 1m, fn: mean, createEmpty: false, timeSrc: "_start")
  |> to(bucket: "battfleet/m1_mean")
