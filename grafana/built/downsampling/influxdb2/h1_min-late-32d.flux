import "date"

option task = {name: "bat h1_min late-32d", every: 1d, offset: 20s}

first = date.truncate(t: date.sub(d: 32d, from: now()), unit: 1h)

from(bucket: "bat/raw")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^(battery|throughput|cell|solar|load|charger|analog|collector|soc)$/)
  |> filter(fn: (r) => r._field =~ /^(alarms|batteries_in_series|bytes_in|charge_ah|charge_in_ah|charge_out_ah|charge_step_ah|charged_today_wh|charged_total_wh|clock_state|control|cpu_share|current_a|current_max_a|current_min_a|current_offset_a|current_peak_a|current_std_a|day_count|dcdc_current_peak_a|dcdc_enabled|dcdc_state|dead_letters|deep_discharge_count|discharged_since_full_ah|discharged_today_wh|discharged_total_wh|disk_free_bytes|dropped|enabled|energy_in_wh|energy_out_wh|energy_today_wh|energy_total_wh|energy_wh|error_flags|errors|full_charge_count|innovation_bound_v|innovation_v|input_on|journal_bytes|last_sample_age_s|latency_s|lines_sent|memory_bytes|mode|mosfet_temperature_degc|mosfet_temperature_peak_degc|ocv_v|outcomes|power_peak_today_w|power_peak_w|power_w|pwm_enabled|queue_rows|raw_max_v|raw_min_v|raw_std_v|raw_v|reconnects|samples|skipped|soc|soc_counted|soc_hi|soc_lo|soh|state|status|target_current_a|target_voltage_v|temperature_degc|temperature_peak_degc|temperature_sensor|test_state|test_time_s|unsent_age_s|unsent_rows|uptime_s|usable_capacity_ah|usb_enabled|usb_state|voltage_max_v|voltage_min_v|voltage_peak_v|voltage_std_v|voltage_v|wifi_quality|wifi_signal_dbm)$/)
  |> aggregateWindow(every: 1h, fn: min, createEmpty: false, timeSrc: "_start")
  |> to(bucket: "bat/h1_min")
