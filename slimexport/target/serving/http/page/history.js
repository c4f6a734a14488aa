// The last minute, as the page keeps it: events in, figures of every second out. Knows nothing of the page.

export const BIN_S = 1;
export const BINS = 60;

/** The smallest of `values`, each with its weight, that at least `share` of the weight does not exceed; null of none. */
export function percentile(values, share) {
  const sorted = [...values].sort((one, other) => one[0] - other[0]);
  const total = sorted.reduce((sum, [, weight]) => sum + weight, 0);
  let passed = 0;
  for (const [value, weight] of sorted) {
    passed += weight;
    if (passed >= share * total - 1e-9) return value;
  }
  return null;
}

/** Events, as rows that `columns` name. A row stands for `weight` requests. */
export class History {
  constructor() {
    this.events = [];
    this.turnedAway = []; // requests that never were: the queue was full, or nothing is taken any more
  }

  add(columns, rows, weight) {
    for (const row of rows) {
      const event = Object.fromEntries(columns.map((name, index) => [name, row[index]]));
      event.weight = weight;
      event.deadline_ms = event.latency_ms + event.slack_ms;
      event.inTime = event.outcome === "answered" && event.slack_ms >= 0;
      this.events.push(event);
    }
  }

  /** So many requests were turned away between this look and the one before, at about `nowS`. */
  addTurnedAway(nowS, count) {
    if (count > 0) this.turnedAway.push({ at_s: nowS, count });
  }

  /** Forget what ended, or waited, before the oldest bin. */
  forget(nowS) {
    const oldest = (Math.floor(nowS / BIN_S) - BINS - 1) * BIN_S;
    this.events = this.events.filter((event) => event.at_s >= oldest);
    this.turnedAway = this.turnedAway.filter((entry) => entry.at_s >= oldest);
  }

  /** A summary of what ended within so many seconds. */
  last(seconds, nowS, widths) {
    const recent = (entry) => entry.at_s > nowS - seconds;
    return summary(this.events.filter(recent), this.turnedAway.filter(recent), widths);
  }

  /** The whole seconds of the last minute, the oldest first; `widths` is how many there are. */
  bins(nowS, widths) {
    const end = Math.floor(nowS / BIN_S); // what is not over would look like less
    const bins = Array.from({ length: BINS }, (_, index) => ({
      fromS: (end - BINS + index) * BIN_S,
      events: [],
      turnedAway: [],
      waited: 0,
    }));
    const at = (timeS) => Math.floor(timeS / BIN_S) - end + BINS;
    for (const event of this.events) bins[at(event.at_s)]?.events.push(event);
    for (const entry of this.turnedAway) bins[at(entry.at_s)]?.turnedAway.push(entry);
    this.#countWaiting(bins, at);
    return bins.map((bin) => ({ fromS: bin.fromS, waited: bin.waited, ...summary(bin.events, bin.turnedAway, widths) }));
  }

  /** How many images waited at once at most: from when requests came to when their run began, or they were refused. */
  #countWaiting(bins, at) {
    const changes = [];
    for (const event of this.events) {
      const images = event.images * event.weight;
      changes.push([event.at_s - event.latency_ms / 1e3, images], [event.at_s - event.computed_ms / 1e3, -images]);
    }
    changes.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    let waiting = 0;
    let place = -Infinity;
    for (const [timeS, change] of changes) {
      const next = at(timeS);
      for (let bin = Math.max(0, place + 1); bin <= Math.min(next, bins.length - 1); bin++) bins[bin].waited = waiting;
      place = next;
      waiting += change;
      if (bins[place]) bins[place].waited = Math.max(bins[place].waited, waiting);
    }
  }
}

/** What happened to some events: requests by what became of them, images by width, latencies, the deadline. */
export function summary(events, turnedAway, widths) {
  const images = new Array(widths).fill(0);
  let inTime = 0;
  let missed = turnedAway.reduce((sum, entry) => sum + entry.count, 0);
  for (const event of events) {
    if (event.inTime) inTime += event.weight;
    else missed += event.weight;
    if (event.width >= 0 && event.outcome === "answered") images[event.width] += event.images * event.weight;
  }
  const answered = events.filter((event) => event.outcome === "answered");
  const latencies = answered.map((event) => [event.latency_ms, event.weight]);
  return {
    inTime,
    missed,
    images,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    deadline: percentile(events.map((event) => [event.deadline_ms, event.weight]), 0.5),
  };
}

/** The mean of `values` (null: not known) by how many images had it; null where there is none, or one of them is not known. */
export function weightedMean(values, images) {
  let sum = 0;
  let count = 0;
  for (const [index, number] of images.entries()) {
    if (!number) continue;
    if (values[index] === null || values[index] === undefined) return null;
    sum += values[index] * number;
    count += number;
  }
  return count ? sum / count : null;
}
