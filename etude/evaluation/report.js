(() => {
  "use strict";
  const at_once = 12;

  const list = document.getElementById("examples");
  if (list) {
    const rows = [...list.children];
    const buttons = [...document.querySelectorAll("button[data-outcomes]")];
    const search = document.getElementById("search"), order = document.getElementById("order"), more = document.getElementById("more");
    let wanted = buttons[0].dataset.outcomes.split(","), shown = at_once;
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    // The first of each outcome, then the second of each: the first page shows what was lost, gained and kept.
    const seen = {};
    const turn = new Map(rows.map((row) => [row, seen[row.dataset.outcome] = (seen[row.dataset.outcome] ?? 0) + 1]));
    const orders = {
      each: (one, other) => turn.get(one) - turn.get(other) || one.dataset.position - other.dataset.position,
      outcome: (one, other) => one.dataset.position - other.dataset.position,
      place: (one, other) => one.dataset.place.localeCompare(other.dataset.place, undefined, { numeric: true }),
      longest: (one, other) => other.dataset.length - one.dataset.length,
    };
    const draw = () => {
      const needle = search.value.trim().toLowerCase();
      rows.sort(orders[order.value]).forEach((row) => list.append(row));
      const fitting = rows.filter((row) => wanted.includes(row.dataset.outcome) && texts.get(row).includes(needle));
      const visible = new Set(fitting.slice(0, shown));
      rows.forEach((row) => { row.hidden = !visible.has(row); });
      const left = fitting.length - visible.size;
      more.hidden = left === 0;
      more.textContent = `Show ${Math.min(left, 50)} more of ${left}`;
      document.getElementById("none").hidden = fitting.length > 0;
    };
    buttons.forEach((button) => button.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      wanted = button.dataset.outcomes.split(",");
      shown = at_once;
      draw();
    }));
    search.addEventListener("input", () => { shown = at_once; draw(); });
    order.addEventListener("change", draw);
    more.addEventListener("click", () => { shown += 50; draw(); });
    document.getElementById("bar").hidden = false;
    draw();
    addEventListener("beforeprint", () => rows.forEach((row) => { row.hidden = false; }));
    addEventListener("afterprint", draw);
  }

  const chart = document.getElementById("chart");
  if (chart) {
    const lines = JSON.parse(chart.dataset.lines), svg = chart.querySelector("svg");
    const cursor = chart.querySelector(".cursor"), tip = chart.querySelector(".tip");
    const nearest = (points, x) => points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
    chart.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), width = svg.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / box.width * width;
      const found = lines.map((line) => [line.name, nearest(line.points, x)]);
      const place = nearest(found.map(([, point]) => point), x)[0];
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
      cursor.style.visibility = tip.style.visibility = "visible";
      tip.replaceChildren(...found.map(([name, point]) => {
        const line = document.createElement("div");
        line.textContent = `step ${point[2]}: ${name} ${point[3]} (${chart.dataset.unit})`;
        return line;
      }));
      const left = place / width * box.width;
      tip.style.left = `${left > box.width / 2 ? left - tip.offsetWidth - 12 : left + 12}px`;
      tip.style.top = "12px";
    });
    chart.addEventListener("pointerleave", () => { cursor.style.visibility = tip.style.visibility = "hidden"; });
  }
})();
