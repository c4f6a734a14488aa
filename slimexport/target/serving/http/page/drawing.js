// Parts of a chart over the last minute: its frame, lines, layers, and the names beside them. Sizes are CSS pixels.

import { BINS, BIN_S } from "./history.js";

const MARGIN = { top: 8, right: 96, bottom: 24, left: 42 };
const HEIGHT = 190;
const LINE = 14; // of text
const NARROW = 170; // a plot that is no wider has no room for the middle time
const SECONDS = BINS * BIN_S;

export function element(name, attributes = {}, text = "") {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  if (text) shape.textContent = text;
  return shape;
}

/** Round numbers from `least` to `most`: steps of 1, 2 or 5 times a power of ten, `count` of them or fewer. */
export function ticks(least, most, count = 4) {
  const rough = (most - least) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * (1 - 1e-9));
  const first = Math.ceil(least / step - 1e-9);
  const last = Math.floor(most / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** Places as near to the wanted ones as can be that are `apart` from each other, between `least` and `most`. */
export function spread(wanted, apart, least, most) {
  const order = wanted.map((_, index) => index).sort((one, other) => wanted[one] - wanted[other]);
  const places = order.map((index) => Math.min(most, Math.max(least, wanted[index])));
  for (let index = 1; index < places.length; index++) places[index] = Math.max(places[index], places[index - 1] + apart);
  if (places.length && places.at(-1) > most) {
    places[places.length - 1] = most;
    for (let index = places.length - 2; index >= 0; index--) places[index] = Math.min(places[index], places[index + 1] - apart);
  }
  const given = new Array(wanted.length);
  order.forEach((index, rank) => (given[index] = places[rank]));
  return given;
}

/** A chart in an <svg>, drawn anew each time, of values from `least` to `most`. */
export class Chart {
  constructor(svg, least, most) {
    this.svg = svg;
    this.width = Math.max(240, svg.clientWidth || svg.parentElement.clientWidth);
    [this.least, this.most] = [least, most];
    this.right = this.width - MARGIN.right;
    this.bottom = HEIGHT - MARGIN.bottom;
    this.names = [];
    svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    svg.setAttribute("height", HEIGHT);
    svg.replaceChildren();
    this.#frame();
  }

  x(bin) {
    return MARGIN.left + ((this.right - MARGIN.left) * bin) / BINS;
  }

  y(value) {
    const share = (value - this.least) / (this.most - this.least || 1);
    return this.bottom - (this.bottom - MARGIN.top) * Math.min(1, Math.max(0, share));
  }

  #frame() {
    for (const value of ticks(this.least, this.most)) {
      const y = this.y(value);
      this.svg.append(
        element("line", { class: value === this.least ? "axis" : "grid", x1: MARGIN.left, x2: this.right, y1: y, y2: y }),
        element("text", { class: "tick", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, value.toLocaleString("en")),
      );
    }
    for (const ago of this.right - MARGIN.left > NARROW ? [SECONDS, SECONDS / 2, 0] : [SECONDS, 0]) {
      const x = this.x(BINS * (1 - ago / SECONDS));
      const anchor = ago === SECONDS ? "start" : ago === 0 ? "end" : "middle";
      this.svg.append(
        element("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": anchor }, ago ? `${ago} s ago` : "now"),
      );
    }
  }

  /** A line through `values`, one a bin, interrupted where they are null. */
  line(values, kind) {
    let path = "";
    let pen = "M";
    values.forEach((value, bin) => {
      if (value === null) {
        pen = "M";
        return;
      }
      const alone = pen === "M" && (values[bin + 1] ?? null) === null; // a point would not be seen
      path += `${pen}${this.x(alone ? bin : bin + 0.5).toFixed(1)} ${this.y(value).toFixed(1)}`;
      if (alone) path += `H${this.x(bin + 1).toFixed(1)}`;
      pen = "L";
    });
    this.svg.append(element("path", { class: `line ${kind}`, d: path }));
  }

  /** A line of steps: a value holds until the next that is known. */
  steps(values, kind) {
    let path = "";
    values.forEach((value, bin) => {
      if (value !== null) path += `${path ? "V" : `M${this.x(bin).toFixed(1)} `}${this.y(value).toFixed(1)}`;
      if (path) path += `H${this.x(bin + 1).toFixed(1)}`;
    });
    this.svg.append(element("path", { class: `line ${kind}`, d: path }));
  }

  /** What is between two values of every bin; nothing where one is null. */
  layer(low, high, kind) {
    const shown = high.map((value, bin) => value !== null && low[bin] !== null && value > low[bin]);
    let path = "";
    for (let from = 0; from < shown.length; from++) {
      if (!shown[from]) continue;
      let to = from;
      while (shown[to]) to++;
      path += `M${this.x(from).toFixed(1)} ${this.y(low[from]).toFixed(1)}`;
      for (let bin = from; bin < to; bin++) path += `V${this.y(high[bin]).toFixed(1)}H${this.x(bin + 1).toFixed(1)}`;
      for (let bin = to - 1; bin >= from; bin--) path += `V${this.y(low[bin]).toFixed(1)}H${this.x(bin).toFixed(1)}`;
      path += "Z";
      from = to;
    }
    const shape = element("path", { class: `layer ${kind}`, d: path });
    this.svg.append(shape);
    return shape;
  }

  /** A line across at a value. */
  across(value, kind) {
    const y = this.y(value);
    this.svg.append(element("line", { class: `line ${kind}`, x1: MARGIN.left, x2: this.right, y1: y, y2: y }));
  }

  /** A name beside the plot, at the height of a value. */
  name(value, text, kind) {
    this.names.push({ y: this.y(value), text, kind });
  }

  /** The names, none over another, and in words what the chart shows. */
  finish(words) {
    const places = spread(this.names.map((name) => name.y), LINE, MARGIN.top + 4, this.bottom);
    this.names.forEach(({ y, text, kind }, index) => {
      const from = this.right + 2;
      this.svg.append(
        element("path", { class: `leader ${kind}`, d: `M${from} ${y.toFixed(1)}L${from + 8} ${places[index].toFixed(1)}` }),
        element("text", { class: `name ${kind}`, x: from + 11, y: (places[index] + 4).toFixed(1) }, text),
      );
    });
    this.svg.setAttribute("aria-label", words);
  }
}
