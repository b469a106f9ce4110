// What the chart shows of a series.

/** A series and its forecasts as uPlot takes them: seconds, measured, forecast, lower, upper. */
export function columns(series) {
  const rows = new Map();
  const row = (ms) => {
    if (!rows.has(ms)) rows.set(ms, [ms / 1000, null, null, null, null]);
    return rows.get(ms);
  };
  for (const [start, value] of series.points) row(start)[1] = value;
  const first = series.points[0]?.[0] ?? -Infinity;
  const last = series.points.at(-1)?.[0] ?? -Infinity;
  // In the past the shortest look ahead, in the future every one that has not come true yet.
  const horizons = Object.keys(series.forecasts).map(Number).sort((a, b) => a - b);
  for (const horizon of horizons) {
    for (const [target, , value, lower, upper] of series.forecasts[horizon]) {
      if (target < first || (horizon !== horizons[0] && target <= last)) continue;
      const cells = row(target);
      if (cells[2] === null) [cells[2], cells[3], cells[4]] = [value, lower, upper];
    }
  }
  const sorted = [...rows.values()].sort((a, b) => a[0] - b[0]);
  // A window that is missing altogether is a gap, not a straight line.
  const filled = [];
  for (const cells of sorted) {
    const before = filled.at(-1);
    if (before && (cells[0] - before[0]) * 1000 > series.window_ms * 1.5 && cells[0] * 1000 <= last) {
      filled.push([before[0] + series.window_ms / 1000, null, null, null, null]);
    }
    filled.push(cells);
  }
  return [0, 1, 2, 3, 4].map((column) => filled.map((cells) => cells[column]));
}

/** A strip at the foot: how much of each window was there. */
export function completeness(u, series, colour) {
  const pen = u.ctx;
  const ratio = devicePixelRatio;
  const { left, top, width, height } = u.bbox;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, width, height);
  pen.clip();
  for (const [start, , seen, expected] of series.points) {
    const from = u.valToPos(start / 1000, "x", true);
    const to = u.valToPos((start + series.window_ms) / 1000, "x", true);
    const share = expected ? seen / expected : 0;
    pen.fillStyle = colour(share >= 0.95 ? "--good" : share > 0 ? "--warn" : "--bad");
    pen.globalAlpha = share >= 0.95 ? 0.45 : 0.95;
    pen.fillRect(from, top + height - 3 * ratio, Math.max(1, to - from - ratio), 3 * ratio);
  }
  pen.restore();
}

/** The newest forecast at the shortest horizon, if its time is still to come. */
export function soonest(forecasts, now) {
  const shortest = Math.min(...Object.keys(forecasts).map(Number));
  const newest = forecasts[shortest]?.at(-1);
  return newest && newest[0] >= now ? newest : null;
}

/** The y axis: from zero for what cannot be negative, with air above. */
export function span(low, high, kind) {
  if (low === null || high === null) return [0, 1];
  const room = Math.max((high - low) * 0.12, 0.5);
  const zero = kind.total || (low >= 0 && low < (high - low) * 2);
  return [zero ? 0 : low - room, high + room];
}
