// Texts of the page whose contrast is below WCAG 2.2 AA, as {what: [ratio, text]}.
() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const line = (node) => {
    const up = [];
    for (let one = node; one; one = one.parentElement) up.unshift(getComputedStyle(one));
    return up;
  };
  const faint = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    const box = node.getBoundingClientRect();
    // Numerals in the marks are part of a picture; hidden text is for those who listen.
    if (!text || box.width < 2 || box.height < 2 || node.closest("svg, .hidden") || !node.checkVisibility()) continue;
    const styles = line(node);
    const ground = styles.reduce((under, style) => over(rgba(style.backgroundColor), under), [0, 0, 0]);
    const ink = rgba(styles.at(-1).color);
    ink[3] *= styles.reduce((left, style) => left * parseFloat(style.opacity), 1);
    const [low, high] = [light(over(ink, ground)), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(styles.at(-1).fontSize);
    const large = size >= 24 || (size >= 18.66 && styles.at(-1).fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint[`${node.tagName}.${node.className}`] = [ratio, text];
  }
  return faint;
}
