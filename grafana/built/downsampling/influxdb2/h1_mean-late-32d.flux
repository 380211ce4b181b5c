import "date"

option task = {name: "battfleet h1_mean late-32d", every: 1d, offset: 20s}

first = date.truncate(t: date.sub(d: 32d, from: now()), unit: 1h)

from(bucket: "battfleet/raw")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^(battery|cell|solar|load|charger|analog|collector|soc)$/)
  |> filter(fn: (r) => r._field !~ /^(model|version|detail)$/)
  |> aggregateWindow(every: 1h, fn: mean, createEmpty: false, timeSrc: "_start")
  |> to(bucket: "battfleet/h1_mean")
