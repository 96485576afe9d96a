// The texts and icons of a page whose contrast to what is behind them is below 4.5 to 1 (WCAG 2).
() => {
  const parse = (text) => {
    const parts = (text || "").match(/[\d.]+/g);
    if (!parts || text === "none" || text.startsWith("color(")) return null;
    return [...parts.slice(0, 3), parts[3] ?? 1].map(Number);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour && colour[3] > 0) layers.push(colour);
      if (colour && colour[3] === 1) break;
    }
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const inPicture = (text) => { // the box that a text of an SVG stands in
    const place = text.getBoundingClientRect();
    const boxes = [...text.ownerSVGElement.querySelectorAll("rect")].filter((rect) => {
      const box = rect.getBoundingClientRect(), middle = place.top + place.height / 2;
      return getComputedStyle(rect).fill !== "none" && box.left <= place.left + 1 &&
        box.right >= place.right - 1 && box.top <= middle && box.bottom >= middle;
    });
    return boxes.length ? parse(getComputedStyle(boxes.at(-1)).fill).slice(0, 3) : null;
  };
  const faults = [];
  const check = (element, text, colour, back) => {
    const box = element.getBoundingClientRect(), front = parse(colour);
    if (box.width < 2 || box.height < 2 || !front) return;
    if (getComputedStyle(element).visibility === "hidden") return;
    for (let e = element; e; e = e.parentElement) front[3] *= Number(getComputedStyle(e).opacity);
    if (front[3] === 0) return;
    const under = back ?? behind(element);
    const [one, other] = [light(over(front, under)), light(under)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faults.push(`${text.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent, element = walker.currentNode.parentElement;
    if (!text.trim() || element.closest("script, style, title, noscript, option")) continue;
    const style = getComputedStyle(element);
    if (element.tagName === "text") check(element, text, style.fill, inPicture(element));
    else check(element, text, style.color);
  }
  for (const field of document.querySelectorAll("input:not([type=file], [type=checkbox])")) {
    check(field, field.value, getComputedStyle(field).color);
  }
  for (const icon of document.querySelectorAll("button svg")) {
    check(icon, icon.closest("button").ariaLabel ?? "icon", getComputedStyle(icon).color);
  }
  return faults;
}
