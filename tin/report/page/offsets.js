// The offsets of every block at one validation, and a slider over the validations.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 90;
const RIGHT = 610;
const LINE = 26;

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

class OffsetChart {
  // offsets: {limit, epochs, blocks, values[epoch][block] = [mean, 10 %, 90 %, of the first offset, then of the second, gain]}
  constructor(place, offsets) {
    this.offsets = offsets;
    const height = offsets.blocks.length * LINE + 40;
    this.chart = shape("svg", { viewBox: `0 0 640 ${height}`, class: "chart", role: "img" });
    this.chart.setAttribute("aria-labelledby", "offsets-title");
    this.reading = element("output", { id: "offsets-epoch" });
    const last = offsets.epochs.length - 1;
    this.slider = element("input", { type: "range", min: 0, max: last, value: last, id: "offsets-slider" });
    this.slider.addEventListener("input", () => this.draw());
    const label = element("label", { htmlFor: "offsets-slider", textContent: "Validation " });
    const legend = element("p", { className: "quiet", textContent: "Dots: mean over the clips; lines: from the 10th to the 90th percentile. Upper, blue: first offset; lower, orange: second." });
    place.append(element("p", {}, label, this.slider, " ", this.reading), legend, this.chart);
    this.table = new SortedTable(place, {
      caption: "Offsets in frames",
      columns: [
        { title: "block", value: ([block]) => offsets.blocks[block], kind: "name" },
        ...["first offset, mean", "10 %", "90 %", "second offset, mean", "10 %", "90 %", "gain"].map((title, at) => ({
          title, value: ([, numbers]) => numbers[at], text: ([, numbers]) => numbers[at].toFixed(3), kind: "number",
        })),
      ],
      rows: this.rows(last),
      descending: false,
    });
    this.draw();
  }

  rows(at) {
    return this.offsets.values[at].map((numbers, block) => [block, numbers]);
  }

  draw() {
    const { limit, epochs, blocks, values } = this.offsets;
    const at = Number(this.slider.value);
    const x = (frames) => LEFT + ((frames + limit) / (2 * limit)) * (RIGHT - LEFT);
    const bottom = blocks.length * LINE + 8;
    this.reading.textContent = `epoch ${epochs[at]}`;
    this.slider.setAttribute("aria-valuetext", this.reading.textContent);
    this.chart.replaceChildren();
    for (let frames = -limit; frames <= limit; frames += 1) {
      this.chart.append(shape("line", { x1: x(frames), x2: x(frames), y1: 4, y2: bottom, class: "axis" }));
      this.chart.append(shape("text", { x: x(frames), y: bottom + 18, "text-anchor": "middle" }, `${frames > 0 ? "+" : ""}${frames}`));
    }
    for (const [block, numbers] of values[at].entries()) {
      const y = block * LINE + 16;
      this.chart.append(shape("text", { x: LEFT - 10, y: y + 4, "text-anchor": "end" }, blocks[block]));
      for (const [which, name] of ["first", "second"].entries()) {
        const [mean, low, high] = numbers.slice(3 * which, 3 * which + 3);
        const line = y - 4 + 8 * which;
        this.chart.append(shape("line", { x1: x(low), x2: x(high), y1: line, y2: line, class: name }));
        this.chart.append(shape("circle", { cx: x(mean), cy: line, r: 3.5, class: name }));
      }
    }
    this.table.replace(this.rows(at), `Offsets in frames, epoch ${epochs[at]}`);
  }
}
