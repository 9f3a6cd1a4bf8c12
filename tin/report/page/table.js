// A table that sorts by the buttons in its head and shows its rows a page at a time.

const MOST_ON_PAPER = 2000; // rows
const collator = new Intl.Collator("en", { numeric: true });

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function percent(share) {
  return share === null ? "–" : `${(100 * share).toFixed(2)} %`;
}

// columns: {title, value(row) for sorting and, unless there is text(row), for showing; kind: "name", "number" or "action"}
class SortedTable {
  constructor(place, { caption, columns, rows, page = 100, sort = 0, descending = true, printAll = true }) {
    this.columns = columns;
    this.page = page;
    this.printAll = printAll;
    this.shown = 0;
    this.body = element("tbody");
    this.caption = element("caption", { textContent: caption });
    this.status = element("p", { className: "hidden" });
    this.status.setAttribute("role", "status");
    this.more = element("p", { className: "more" });
    this.heads = columns.map((column, at) => this.head(column, at));
    const table = element("table", {}, this.caption, element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    const scroll = element("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", caption);
    place.append(scroll, this.more, this.status);
    this.rows = rows;
    this.sort(sort, descending);
    addEventListener("beforeprint", () => this.printAll && this.show(Math.min(this.rows.length, MOST_ON_PAPER)));
  }

  head(column, at) {
    const head = element("th", { scope: "col", className: column.kind });
    if (column.kind === "action") {
      head.append(element("span", { className: "hidden", textContent: column.title }));
      return head;
    }
    const button = element("button", { type: "button", textContent: column.title });
    // numbers begin with the largest, names with A
    button.addEventListener("click", () => {
      this.sort(at, at === this.by ? !this.descending : column.kind === "number");
      const way = this.descending ? "descending" : "ascending";
      this.status.textContent = `${this.caption.textContent}: sorted by ${column.title}, ${way}`;
    });
    head.setAttribute("aria-sort", "none");
    head.append(button);
    return head;
  }

  replace(rows, caption) {
    this.rows = rows;
    this.caption.textContent = caption;
    this.status.textContent = caption;
    this.sort(this.by, this.descending);
  }

  sort(by, descending) {
    this.by = by;
    this.descending = descending;
    const { value, kind } = this.columns[by];
    const compare = kind === "number" ? (a, b) => a - b : collator.compare;
    const keyed = this.rows.map((row) => [value(row), row]);
    // what has no value stands last, whichever way
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    this.rows = keyed.map(([, row]) => row);
    for (const [at, head] of this.heads.entries()) {
      if (head.hasAttribute("aria-sort")) {
        head.setAttribute("aria-sort", at !== by ? "none" : descending ? "descending" : "ascending");
      }
    }
    this.body.replaceChildren();
    this.shown = 0;
    this.show(this.page);
  }

  show(count) {
    const until = Math.min(count, this.rows.length);
    this.body.append(...this.rows.slice(this.shown, until).map((row) => this.line(row)));
    this.shown = Math.max(this.shown, until);
    const left = this.rows.length - this.shown;
    this.more.replaceChildren();
    if (left > 0) {
      const next = Math.min(left, this.page);
      const button = element("button", { type: "button", textContent: `Show ${next} more` });
      button.addEventListener("click", () => {
        const first = this.shown;
        this.show(first + this.page);
        this.focusAfter(first);
      });
      this.more.append(button, `${this.shown} of ${this.rows.length} shown`);
    }
  }

  // the button that was pressed is gone: go on with its successor, else with the rows that it brought
  focusAfter(first) {
    const next = this.more.querySelector("button");
    if (next) {
      next.focus();
      return;
    }
    this.body.rows[first].tabIndex = -1;
    this.body.rows[first].focus();
  }

  line(row) {
    const cells = this.columns.map(({ value, text, kind, action, title }) => {
      const cell = element("td", { className: kind });
      if (kind === "action") {
        const button = element("button", { type: "button", className: "show", textContent: title });
        button.addEventListener("click", () => action(row));
        cell.append(button);
      } else if (kind === "number") {
        cell.textContent = text ? text(row) : value(row);
      } else {
        cell.append(element("bdi", { textContent: text ? text(row) : value(row) }));
      }
      return cell;
    });
    return element("tr", {}, ...cells);
  }
}
