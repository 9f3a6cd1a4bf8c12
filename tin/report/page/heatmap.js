// The confusion matrix as a picture of one pixel a cell, read by pointer or arrow keys.

const RAMPS = {
  light: [[205, 223, 240], [158, 202, 225], [66, 146, 198], [8, 81, 156], [8, 29, 88]],
  dark: [[35, 40, 74], [84, 39, 143], [183, 55, 121], [252, 137, 97], [252, 253, 191]],
};
const EMPTY = { light: [255, 255, 255], dark: [20, 24, 29] };
const WITHOUT = { light: [225, 225, 225], dark: [60, 64, 70] };
const NAMED = 40;

function colourOf(share, scheme) {
  const ramp = RAMPS[scheme];
  // errors spread over many classes are small shares each: the square root lets them be seen
  const place = Math.sqrt(share) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[low].map((part, at) => Math.round(part + (place - low) * (ramp[low + 1][at] - part)));
}

class HeatMap {
  // counts: flat [true, taken for, videos, …], of cells that are not 0; onOpen(true, taken for)
  constructor(place, { counts, names, videos, onOpen }) {
    Object.assign(this, { names, videos, onOpen, size: names.length, row: 0, column: 0 });
    this.counts = new Map();
    for (let at = 0; at < counts.length; at += 3) this.counts.set(counts[at] * this.size + counts[at + 1], counts[at + 2]);
    this.canvas = element("canvas", { width: this.size, height: this.size });
    this.cell = element("div", { className: "cell", hidden: true });
    this.reading = element("output", { className: "reading" });
    this.field = element("div", { className: "field", tabIndex: 0 }, this.canvas, this.cell);
    this.field.setAttribute("role", "application");
    this.field.setAttribute("aria-label", `Confusion heat map of ${this.size} classes`);
    this.field.setAttribute("aria-describedby", "heatmap-help");
    this.map = element("div", { className: "map" }, this.field);
    this.map.style.maxWidth = `${Math.min(54, 16 + 2.4 * this.size)}rem`;
    if (this.size <= NAMED) this.addNames();
    place.append(this.legend(), this.map, this.reading);
    this.listen();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => this.draw(dark.matches ? "dark" : "light");
    dark.addEventListener("change", draw);
    addEventListener("beforeprint", () => this.draw("light"));
    addEventListener("afterprint", draw);
    draw();
  }

  addNames() {
    const named = (className) => element("div", { className }, ...this.names.map((name) => element("span", { textContent: name, title: name })));
    const rows = named("rows");
    const columns = named("columns");
    for (const part of [rows, columns]) part.setAttribute("aria-hidden", "true");
    this.map.prepend(rows);
    this.map.append(columns);
    const longest = Math.max(...this.names.map((name) => name.length));
    this.map.style.gridTemplateColumns = `${Math.min(11, 1 + 0.5 * longest)}rem minmax(0, 1fr)`;
  }

  legend() {
    this.ramp = element("canvas", { className: "ramp", width: 100, height: 1 });
    this.ramp.setAttribute("aria-hidden", "true");
    return element("p", { className: "quiet" }, "Rows: true class. Columns: predicted class. Part of the true class: 0 % ", this.ramp, " 100 %, on a square-root scale; grey: no videos.");
  }

  draw(scheme) {
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(this.size, this.size);
    for (let row = 0; row < this.size; row += 1) {
      const ground = this.videos[row] ? EMPTY[scheme] : WITHOUT[scheme];
      for (let column = 0; column < this.size; column += 1) {
        const at = row * this.size + column;
        const count = this.counts.get(at);
        image.data.set(count ? colourOf(count / this.videos[row], scheme) : ground, 4 * at);
        image.data[4 * at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    const ramp = this.ramp.getContext("2d");
    for (let at = 0; at < 100; at += 1) {
      ramp.fillStyle = `rgb(${colourOf((at / 99) ** 2, scheme).join(" ")})`;
      ramp.fillRect(at, 0, 1, 1);
    }
  }

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const inside = (part) => Math.min(this.size - 1, Math.max(0, Math.floor(part * this.size)));
      this.go(inside((event.clientY - box.top) / box.height), inside((event.clientX - box.left) / box.width));
    };
    this.field.addEventListener("pointermove", at);
    this.field.addEventListener("click", (event) => {
      at(event);
      this.onOpen(this.row, this.column);
    });
    this.field.addEventListener("focus", () => this.go(this.row, this.column));
    this.field.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = event.shiftKey ? 10 : 1;
    const last = this.size - 1;
    const moves = {
      ArrowUp: [this.row - step, this.column],
      ArrowDown: [this.row + step, this.column],
      ArrowLeft: [this.row, this.column - step],
      ArrowRight: [this.row, this.column + step],
      Home: [this.row, 0],
      End: [this.row, last],
      PageUp: [0, this.column],
      PageDown: [last, this.column],
    };
    if (event.key === "Enter" || event.key === " ") this.onOpen(this.row, this.column);
    else if (event.key in moves) this.go(...moves[event.key].map((place) => Math.min(last, Math.max(0, place))));
    else return;
    event.preventDefault();
  }

  go(row, column) {
    this.row = row;
    this.column = column;
    const part = 100 / this.size;
    this.cell.hidden = false;
    // of a small cell the frame lies around it, so that its colour is seen
    Object.assign(this.cell.style, { left: `calc(${column * part}% - 2px)`, top: `calc(${row * part}% - 2px)`, width: `calc(${part}% + 4px)`, height: `calc(${part}% + 4px)` });
    this.reading.textContent = this.text(row, column);
  }

  text(row, column) {
    const videos = this.videos[row];
    if (!videos) return `${this.names[row]}: no videos of this class`;
    const count = this.counts.get(row * this.size + column) ?? 0;
    const what = row === column ? `${this.names[row]}, recognised` : `${this.names[row]}, taken for ${this.names[column]}`;
    return `${what}: ${count} of ${videos} videos, ${percent(count / videos)}`;
  }
}
