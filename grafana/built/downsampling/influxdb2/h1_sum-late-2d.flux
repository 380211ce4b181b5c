import "date"

option task = {name: "bat h1_sum late-2d", every: 1h, offset: 20s}

first = date.truncate(t: date.sub(d: 2d, from: now()), unit: 1h)

from(bucket: "bat/raw")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^(throughput|load)$/)
  |> filter(fn: (r) => r._field =~ /^(charge_in_ah|charge_out_ah|charge_step_ah|energy_in_wh|energy_out_wh)$/)
  |> aggregateWindow(every: 1h, fn: sum, createEmpty: false, timeSrc: "_start")
  |> to(bucket: "bat/h1_sum")
