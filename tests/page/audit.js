// What of the page's visible part somebody could not read, name or reach in order; nothing, it should be.
// Contrast as WCAG 2.2 has it: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
// A change of colour on its way is looked at as it ends, not wherever it happens to be.
() => {
  document.getAnimations().filter((one) => one instanceof CSSTransition).forEach((one) => one.finish());
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
  const ground = (element) => {
    const own = rgba(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own.slice(0, 3);
    return over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]);
  };
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const isSeen = (element) => {
    const { width, height } = element.getBoundingClientRect();
    return width > 1 && height > 1 && element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  };
  const told = [];
  const read = (element, text, part = null) => {
    const style = getComputedStyle(element, part);
    let ink = rgba(element instanceof SVGElement ? style.fill : style.color);
    for (let e = element; e; e = e.parentElement) ink[3] *= getComputedStyle(e).opacity;
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = contrast(over(ink, ground(element)), ground(element));
    if (ratio < (isLarge ? 3 : 4.5)) told.push(`contrast ${ratio.toFixed(2)}: ${text.slice(0, 60)}`);
  };
  for (const e of document.body.querySelectorAll('*')) {
    if (!isSeen(e)) continue;
    const own = [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.textContent).join('').trim();
    if (own) read(e, own);
    if (e.matches('textarea, input:not([type="radio"], [type="checkbox"], [type="range"])')) {
      if (e.value) read(e, e.value);
      else if (e.placeholder) read(e, e.placeholder, '::placeholder');
    }
    if (e.tabIndex > 0) told.push(`out of order: ${e.outerHTML.slice(0, 120)}`);
    if (!e.matches('button, input, textarea, select, a[href], img, [tabindex="0"]')) continue;
    const labels = [...(e.labels ?? [])].map((label) => label.innerText).join('');
    if (!(e.ariaLabel || labels || e.innerText || e.alt || e.title || '').trim()) told.push(`no name: ${e.tagName} in #${e.closest('[id]')?.id}: ${e.outerHTML.slice(-120)}`);
  }
  return told;
}
