// Fills the page's sections from its data.

const data = JSON.parse(document.getElementById("data").textContent);
const { names, videos } = data;
const place = (id) => document.getElementById(id);
const classOf = (number) => (number < 0 ? "–" : names[number]);

function fillFailures() {
  if (!data.failures.length) return;
  new SortedTable(place("failures"), {
    caption: `${data.failures.length} videos without a score`,
    columns: [
      { title: "video", value: ([id]) => id, kind: "name" },
      { title: "reason", value: ([, reason]) => reason, kind: "name" },
    ],
    rows: data.failures,
    descending: false,
  });
}

function fillClasses() {
  const { videos: counts, predicted, correct } = data.classes;
  const part = (some, all) => (all ? some / all : null);
  const accuracy = (row) => part(correct[row], counts[row]);
  const precision = (row) => part(correct[row], predicted[row]);
  new SortedTable(place("classes-table"), {
    caption: `${names.length} classes`,
    columns: [
      { title: "class", value: (row) => names[row], kind: "name" },
      { title: "index", value: (row) => row, kind: "number" },
      { title: "videos", value: (row) => counts[row], kind: "number" },
      { title: "predicted", value: (row) => predicted[row], kind: "number" },
      { title: "correct", value: (row) => correct[row], kind: "number" },
      { title: "accuracy", value: accuracy, text: (row) => percent(accuracy(row)), kind: "number" },
      { title: "precision", value: precision, text: (row) => percent(precision(row)), kind: "number" },
    ],
    rows: names.map((_, row) => row),
    page: 400,
    sort: 5,
    descending: false,
  });
}

function fillConfusions(open) {
  const counts = data.classes.videos;
  new HeatMap(place("heatmap"), { counts: data.confusion, names, videos: counts, onOpen: open });
  const share = ([label, , wrong]) => wrong / counts[label];
  new SortedTable(place("pairs"), {
    caption: "The pairs with the most wrong videos",
    columns: [
      { title: "true class", value: ([label]) => names[label], kind: "name" },
      { title: "taken for", value: ([, taken]) => names[taken], kind: "name" },
      { title: "videos", value: ([, , wrong]) => wrong, kind: "number" },
      { title: "part of the true class", value: share, text: (row) => percent(share(row)), kind: "number" },
      { title: "show the videos", action: ([label, taken]) => open(label, taken), kind: "action" },
    ],
    rows: data.pairs,
    sort: 2,
  });
}

// Returns the function that shows the videos of one cell of the confusion matrix.
function fillVideos() {
  const labelled = data.classes !== null;
  const all = videos.ids.map((_, row) => row);
  const confidence = (row) => videos.confidences[row] / 10000;
  const outcome = (row) => (videos.labels[row] === videos.predictions[row] ? "right" : "wrong");
  const table = new SortedTable(place("videos-table"), {
    caption: `${all.length} videos`,
    columns: [
      { title: "video", value: (row) => videos.ids[row], kind: "name" },
      { title: "true class", value: (row) => classOf(videos.labels[row]), kind: "name" },
      { title: "predicted", value: (row) => classOf(videos.predictions[row]), kind: "name" },
      { title: "confidence", value: confidence, text: (row) => percent(confidence(row)), kind: "number" },
      ...(labelled ? [{ title: "outcome", value: outcome, kind: "name" }] : []),
    ],
    rows: all,
    sort: 3,
    printAll: false,
  });

  const order = names.map((_, number) => number).sort((a, b) => collator.compare(names[a], names[b]));
  const choice = (title, options) => {
    const select = element("select", {}, ...options.map(([value, text]) => element("option", { value, textContent: text })));
    return [select, element("label", {}, title, select)];
  };
  const classes = [["", "any"], ...order.map((number) => [number, names[number]])];
  const [label, labelField] = choice("true class", classes);
  const [taken, takenField] = choice("predicted", classes);
  const [result, resultField] = choice("outcome", [["", "any"], ["wrong", "wrong"], ["right", "right"]]);
  const text = element("input", { type: "search" });
  const form = element("form", { className: "filters" });
  if (labelled) form.append(labelField, resultField);
  form.append(takenField, element("label", {}, "name contains", text));
  place("videos-table").prepend(form);

  const filter = () => {
    const part = text.value.toLowerCase();
    const matches = (select, value) => select.value === "" || select.value === String(value);
    const rows = all.filter(
      (row) =>
        matches(label, videos.labels[row]) &&
        matches(taken, videos.predictions[row]) &&
        matches(result, outcome(row)) &&
        videos.ids[row].toLowerCase().includes(part),
    );
    table.replace(rows, rows.length === all.length ? `${all.length} videos` : `${rows.length} of ${all.length} videos`);
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  return (of, predicted) => {
    label.value = of;
    taken.value = predicted;
    result.value = "";
    text.value = "";
    filter();
    place("videos-title").focus();
  };
}

fillFailures();
const open = videos.ids.length ? fillVideos() : null;
if (data.classes) {
  fillClasses();
  fillConfusions(open);
}
if (data.offsets) new OffsetChart(place("offsets-chart"), data.offsets);
document.documentElement.dataset.ready = "yes";
