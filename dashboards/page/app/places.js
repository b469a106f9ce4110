// Where things are on the map.

/** A point on a line, near its middle. */
export function middle(line) {
  const half = Math.floor(line.length / 2);
  if (line.length === 2) return [(line[0][0] + line[1][0]) / 2, (line[0][1] + line[1][1]) / 2];
  return line[half];
}

/** The box around the roads, or around the sensors of a city without any. */
export function boundsOf(city) {
  const points = city.roads.features.flatMap((road) => road.geometry.coordinates);
  const all = points.length ? points : Object.values(city.sensors).map((one) => [one.lon, one.lat]);
  const lons = all.map(([lon]) => lon);
  const lats = all.map(([, lat]) => lat);
  const low = (values) => values.reduce((a, b) => Math.min(a, b));
  const high = (values) => values.reduce((a, b) => Math.max(a, b));
  return [[low(lons), low(lats)], [high(lons), high(lats)]];
}

/** The middle of each zone by its sensors; "" is the city's. */
export function zonePlaces(city) {
  const sums = new Map();
  for (const one of Object.values(city.sensors)) {
    for (const zone of [one.zone, ""]) {
      const sum = sums.get(zone) ?? [0, 0, 0];
      sums.set(zone, [sum[0] + one.lon, sum[1] + one.lat, sum[2] + 1]);
    }
  }
  return new Map([...sums].map(([zone, [lon, lat, n]]) => [zone, [lon / n, lat / n]]));
}
