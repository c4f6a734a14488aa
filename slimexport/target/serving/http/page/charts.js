// The five charts: what of the bins each shows, and what it says to those who cannot see it.

import { BINS, BIN_S, weightedMean } from "./history.js";
import { Chart } from "./drawing.js";

const RECENT = 5; // seconds that a chart's words are about
const NAMED = 0.03; // layers thinner than this share have no name beside them; the legend has it

export const rounded = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const milliseconds = (value) => (value < 1e4 ? `${rounded(value, value < 10 ? 1 : 0)} ms` : `${rounded(value / 1e3)} s`);
export const percent = (share) => `${rounded(100 * share, 1)} %`;

/** Where a width stands among all, 0 % for the narrowest to 100 %: its color follows from that. */
export const place = (index, count) => `${count > 1 ? (100 * index) / (count - 1) : 100}%`;

const brief = (label) => (label.length > 7 ? `${label.slice(0, 6)}…` : label); // beside a chart; plans have long names
const sum = (values) => values.reduce((total, value) => total + value, 0);
const last = (values) => values.findLast((value) => value !== null) ?? null;
const highest = (values, least) => values.reduce((most, value) => Math.max(most, value ?? least), least);

/** The share of every width in the answered images of each bin, stacked from the narrowest to the widest. */
export function drawShares(svg, bins, widths) {
  const chart = new Chart(svg, 0, 100);
  const totals = bins.map((bin) => sum(bin.images));
  let low = bins.map(() => 0);
  const recent = bins.slice(-RECENT);
  const recentTotal = sum(recent.map((bin) => sum(bin.images)));
  const words = [];
  let below = 0;
  widths.forEach((width, index) => {
    const high = low.map((value, bin) => (totals[bin] ? value + (100 * bins[bin].images[index]) / totals[bin] : null));
    chart.layer(low, high, "width").style.setProperty("--share", place(index, widths.length));
    low = high.map((value) => value ?? 0);
    const share = recentTotal ? sum(recent.map((bin) => bin.images[index])) / recentTotal : 0;
    if (share >= NAMED) chart.name(100 * (below + share / 2), `${brief(width.label)} · ${rounded(100 * share)} %`, "plain");
    if (share > 0) words.push(`width ${width.label} ${percent(share)}`);
    below += share;
  });
  chart.finish(words.length ? `Of the last 5 seconds' answers: ${words.join(", ")}.` : "Nothing was answered in the last 5 seconds.");
}

/** Latencies that half and 99 of 100 answers stay within, and the deadline. */
export function drawLatency(svg, bins, sloMs) {
  const [p50, p99] = [bins.map((bin) => bin.p50), bins.map((bin) => bin.p99)];
  const deadlines = bins.map((bin) => bin.deadline);
  const due = last(deadlines) ?? sloMs;
  const chart = new Chart(svg, 0, 1.1 * highest([...p99, ...deadlines], sloMs));
  chart.layer(p50, p99, "between");
  chart.line(p99, "p99");
  chart.line(p50, "p50");
  chart.steps(deadlines.every((value) => value === null) ? deadlines.map(() => sloMs) : deadlines, "deadline");
  chart.name(due, `due ${milliseconds(due)}`, "deadline");
  const [half, most] = [last(p50), last(p99)];
  if (half !== null) {
    chart.name(most, `99 % ${milliseconds(most)}`, "plain");
    chart.name(half, `half ${milliseconds(half)}`, "plain");
  }
  chart.finish(
    half === null
      ? `Nothing was answered in the last minute. The deadline is ${milliseconds(due)}.`
      : `Half of the answers came within ${milliseconds(half)}, 99 of 100 within ${milliseconds(most)}; the deadline is ${milliseconds(due)}.`,
  );
}

/** The mean accuracy of what was answered, between those of the narrowest and the widest. Whether any is known. */
export function drawAccuracy(svg, bins, widths) {
  const known = widths.map((width) => (width.accuracy === null ? null : 100 * width.accuracy));
  const both = known.filter((value) => value !== null);
  if (!both.length) return false;
  const values = bins.map((bin) => weightedMean(known, bin.images));
  const [least, most] = [Math.min(...both), Math.max(...both)];
  const room = Math.max(0.5, 0.1 * (most - least));
  const chart = new Chart(svg, Math.max(0, least - room), Math.min(100, most + room));
  for (const value of new Set([least, most])) {
    chart.across(value, "reference");
    chart.name(value, `${brief(widths[known.indexOf(value)].label)}: ${rounded(value, 1)} %`, "reference");
  }
  chart.line(values, "given");
  const given = last(values);
  if (given !== null) chart.name(given, `given ${rounded(given, 1)} %`, "strong");
  chart.finish(
    given === null
      ? "Nothing was answered in the last minute."
      : `The mean accuracy given is ${rounded(given, 1)} %, between ${rounded(least, 1)} % and ${rounded(most, 1)} % of single widths.`,
  );
  return true;
}

/** Requests a second: those answered in time, on them those that were not; and what the widest alone could answer. */
export function drawRequests(svg, bins, widths, imagesOfOne) {
  const inTime = bins.map((bin) => bin.inTime / BIN_S);
  const all = bins.map((bin, index) => inTime[index] + bin.missed / BIN_S);
  const widest = widths.findLast((width) => width.capacity !== null);
  const limit = widest ? widest.capacity / imagesOfOne : null;
  const chart = new Chart(svg, 0, 1.05 * highest(limit === null ? all : [...all, limit], 1));
  const zero = bins.map(() => 0);
  chart.layer(zero, inTime, "in-time");
  chart.layer(inTime, all, "missed").setAttribute("fill", "url(#hatch)");
  if (limit !== null) {
    chart.across(limit, "limit");
    chart.name(limit, `${brief(widest.label)} alone`, "plain");
  }
  const recent = (values) => sum(values.slice(-RECENT)) / RECENT;
  const [good, asked] = [recent(inTime), recent(all)];
  if (good > 0) chart.name(good / 2, "in time", "plain");
  if (asked - good > 0.01 * asked) chart.name((good + asked) / 2, "missed", "alarm");
  chart.finish(
    `${rounded(asked, 1)} requests a second, ${rounded(good, 1)} of them answered in time` +
      (limit === null ? "." : `; width ${widest.label} alone could answer ${rounded(limit)}.`),
  );
}

/** The most images that waited at once in every bin. */
export function drawQueue(svg, bins, waiting, queue) {
  const waited = bins.map((bin) => Math.min(queue, bin.waited)); // of thinned events it is estimated
  const chart = new Chart(svg, 0, 1.05 * highest(waited, 4));
  chart.layer(bins.map(() => 0), waited, "waited");
  chart.steps(waited, "edge");
  const recent = highest(waited.slice(-RECENT), 0);
  chart.name(waited[BINS - 1], `${rounded(waited[BINS - 1])} waited`, "plain");
  chart.finish(`Up to ${rounded(recent)} images waited at once in the last 5 seconds; ${rounded(waiting)} wait now.`);
}
