// What a runtime does, twice a second: asks /live what is new, and shows it.

import { BINS, BIN_S, History, weightedMean } from "./history.js";
import {
  drawAccuracy,
  drawLatency,
  drawQueue,
  drawRequests,
  drawShares,
  milliseconds,
  percent,
  place,
  rounded,
} from "./charts.js";

const EVERY_MS = 500;
const PATIENCE_MS = 5000; // for an answer
const LONGEST_PAUSE_MS = 4000; // between tries to reach a server that is gone
const RECENT_S = 5;
const UNKNOWN = "–";

const by = (id) => document.getElementById(id);

/** Write a text where it differs: what is read aloud is not read again. */
function write(id, text) {
  if (by(id).textContent !== text) by(id).textContent = text;
}

let history = new History();
let server = null;
let since = 0;
let lost = null; // the time when it stopped answering
let latest = null;

// ---------------------------------------------------------------------------------------------------------- showing

function showState(live) {
  const kind = lost ? "gone" : live.ready ? "good" : "closing";
  by("state").dataset.kind = kind;
  document.body.dataset.state = kind;
  if (lost) {
    write("state", `▲ No answer since ${lost.toLocaleTimeString("en-GB")}. Trying again …`);
  } else if (live.ready) {
    const out = live.widths.filter((width) => width.out).length;
    write("state", out ? `● Serving; ${out} of ${live.widths.length} widths out` : "● Serving");
  } else {
    write("state", "■ Takes no requests");
  }
}

function showFigures(live) {
  const recent = history.last(RECENT_S, live.now_s, live.widths.length);
  const minute = history.last(BINS * BIN_S, live.now_s, live.widths.length);
  const age = Math.min(RECENT_S, Math.max(live.now_s, BIN_S));
  write("network", live.network);
  write("facts", `${live.backend} · policy ${live.policy} · ${live.widths.length} widths`);
  document.title = `${live.network}: widths under load`;
  write("rate", rounded((recent.inTime + recent.missed) / age, 1));
  const asked = minute.inTime + minute.missed;
  write("in-time", asked ? percent(minute.inTime / asked) : UNKNOWN);
  write("p99", recent.p99 === null ? UNKNOWN : milliseconds(recent.p99));
  write("slo", milliseconds(live.slo_ms));
  write("waiting", rounded(live.waiting));
  write("queue", rounded(live.queue));
  const most = Math.max(...recent.images);
  write("width", most ? live.widths[recent.images.indexOf(most)].label : UNKNOWN);
  const accuracy = weightedMean(live.widths.map((width) => width.accuracy), recent.images);
  write("accuracy", accuracy === null ? UNKNOWN : percent(accuracy));
  write("accuracy-kind", live.accuracy_kind);
  by("stale").hidden = !live.stale;
  const { submitted, answered, failed, refused } = live.counts;
  const turned = Object.entries(refused).map(([reason, count]) => `${rounded(count)} ${reason}`);
  write(
    "totals",
    `Since the start: ${rounded(submitted)} requests taken, ${rounded(answered)} answered, ${rounded(failed)} failed; refused: ${turned.join(", ")}.`,
  );
}

function showCharts(live) {
  const bins = history.bins(live.now_s, live.widths.length);
  const images = history.events.reduce((sum, event) => sum + event.images, 0);
  drawShares(by("shares"), bins, live.widths);
  drawLatency(by("latency"), bins, live.slo_ms);
  const known = drawAccuracy(by("accuracies"), bins, live.widths);
  by("accuracies").toggleAttribute("hidden", !known);
  by("no-accuracy").hidden = known;
  drawRequests(by("requests"), bins, live.widths, history.events.length ? images / history.events.length : 1);
  drawQueue(by("waited"), bins, live.waiting, live.queue);
}

function showWidths(live) {
  const cells = live.widths.map((width) => [
    width.label,
    width.accuracy === null ? "not known" : percent(width.accuracy),
    width.image_ms === null ? UNKNOWN : milliseconds(width.image_ms),
    width.capacity === null ? UNKNOWN : `${rounded(width.capacity)}/s`,
    rounded(width.answered),
    width.out ? `▲ out: ${width.out}` : "● serves",
  ]);
  by("widths").replaceChildren(
    ...cells.map((texts) => {
      const row = document.createElement("tr");
      texts.forEach((text, index) => {
        const cell = document.createElement(index ? "td" : "th");
        if (!index) cell.scope = "row";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }),
  );
  const labels = live.widths.map((width) => width.label);
  if ([...by("legend").children].map((item) => item.textContent).join() === labels.join()) return;
  by("legend").replaceChildren(
    ...labels.map((label, index) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.setProperty("--share", place(index, labels.length));
      item.append(swatch, label);
      return item;
    }),
  );
}

function show() {
  if (!latest) return;
  showState(latest);
  showFigures(latest);
  showCharts(latest);
  showWidths(latest);
  showSliders(latest.demo, latest.widths);
}

// ---------------------------------------------------------------------------------------------------------- sliders

const wishes = new Map(); // what a slider was moved to and the server has not taken yet
let sending = false;

function showSliders(demo, widths) {
  by("demo").hidden = !demo;
  if (!demo) return;
  Object.assign(by("load"), { max: demo.most_load });
  Object.assign(by("deadline"), { min: demo.least_slo_ms, max: demo.most_slo_ms, step: demo.most_slo_ms > 100 ? 1 : 0.1 });
  if (!wishes.has("load")) by("load").value = demo.load;
  if (!wishes.has("slo_ms")) by("deadline").value = demo.slo_ms;
  sayValues(demo, widths);
}

function sayValues(demo, widths) {
  const load = Number(by("load").value);
  const rate = rounded(Math.min(demo.mostRate, load * demo.capacity));
  write("load-value", `${rounded(load, 1)} × what width ${widths.at(-1).label} can: ${rate} a second`);
  write("deadline-value", milliseconds(Number(by("deadline").value)));
}

async function send() {
  if (sending) return;
  sending = true;
  while (wishes.size) {
    const body = Object.fromEntries(wishes);
    try {
      const answer = await fetch("demo", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const given = await answer.json();
      write("demo-state", answer.ok ? "" : given.error);
      if (answer.ok && latest) latest.demo = given;
    } catch {
      write("demo-state", "The server did not take this. Move the slider again when it answers.");
    }
    for (const [key, value] of Object.entries(body)) if (wishes.get(key) === value) wishes.delete(key);
  }
  sending = false;
}

for (const [id, key] of [["load", "load"], ["deadline", "slo_ms"]]) {
  by(id).addEventListener("input", () => {
    wishes.set(key, Number(by(id).value));
    if (latest?.demo) sayValues(latest.demo, latest.widths);
    send();
  });
}

// ----------------------------------------------------------------------------------------------------------- asking

async function ask() {
  const answer = await fetch(`live?since=${since}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

/** Requests that are in no event. */
const turnedAway = (live) => live.counts.refused.full + live.counts.refused.closed;

function take(live) {
  history.add(live.columns, live.events, live.every);
  if (latest) history.addTurnedAway(live.now_s, turnedAway(live) - turnedAway(latest));
  history.forget(live.now_s);
  since = live.number;
  latest = live;
}

async function follow() {
  let pause = EVERY_MS;
  for (;;) {
    try {
      const live = await ask();
      if (live.server !== server) {
        const restarted = server !== null;
        [history, since, server, latest] = [new History(), 0, live.server, null];
        lost = null;
        if (restarted) continue; // what it said is of the old number
      }
      lost = null;
      pause = EVERY_MS;
      take(live);
    } catch {
      lost ??= new Date();
      if (!latest) write("state", "▲ No answer. Trying again …");
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
    show();
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

new ResizeObserver(() => latest && showCharts(latest)).observe(by("charts"));
follow();
