// A picture to point at: a click or Enter marks a place, a drag or two B mark a box.
// Places are told as shares of the picture's sides, whatever its size on the screen.
const LEAST_DRAG = 8; // pixels of the screen: less is a click with an unsteady hand
const STEP = 0.02;
let cross = [0.5, 0.5], corner = null, start = null;

element.tabIndex = 0;
element.setAttribute('role', 'application');
element.setAttribute('aria-label', props.label);

const picture = () => element.querySelector('img');
const clamp = (value) => Math.min(Math.max(value, 0), 1);

function place(event) {
  const frame = picture().getBoundingClientRect();
  return [clamp((event.clientX - frame.left) / frame.width), clamp((event.clientY - frame.top) / frame.height)];
}

function show(selector, a, b) {
  const mark = element.querySelector(selector);
  if (!mark) return;
  const [left, top] = [Math.min(a[0], b[0]), Math.min(a[1], b[1])];
  Object.assign(mark.style, {
    display: 'block', left: `${100 * left}%`, top: `${100 * top}%`,
    width: `${100 * Math.abs(a[0] - b[0])}%`, height: `${100 * Math.abs(a[1] - b[1])}%`,
  });
}

function hide(selector) {
  const mark = element.querySelector(selector);
  if (mark) mark.style.display = 'none';
}

function drop() {
  start = null;
  hide('.band');
}

function told(a, b) {
  hide('.band');
  trigger('box', { left: Math.min(a[0], b[0]), top: Math.min(a[1], b[1]), right: Math.max(a[0], b[0]), bottom: Math.max(a[1], b[1]) });
}

function pointed(at) {
  trigger('point', { x: at[0], y: at[1] });
}

element.addEventListener('pointerdown', (event) => {
  if (!event.isPrimary) drop(); // a second finger scrolls or zooms
  if (!picture() || event.button !== 0 || !event.isPrimary) return;
  start = { x: event.clientX, y: event.clientY, at: place(event) };
  if (event.pointerType === 'mouse') event.preventDefault();
  element.focus({ preventScroll: true });
});
element.addEventListener('pointermove', (event) => {
  if (start) show('.band', start.at, place(event));
});
element.addEventListener('pointercancel', drop);
element.addEventListener('pointerup', (event) => {
  if (!start) return;
  const { x, y, at } = start;
  drop();
  cross = place(event);
  if (Math.hypot(event.clientX - x, event.clientY - y) < LEAST_DRAG) pointed(at);
  else told(at, place(event));
});
element.addEventListener('keydown', (event) => {
  if (!picture()) return;
  const step = event.shiftKey ? STEP / 4 : STEP;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    cross = [clamp(cross[0] + moves[event.key][0]), clamp(cross[1] + moves[event.key][1])];
    if (corner) show('.band', corner, cross);
  } else if (event.key === 'Enter' || event.key === ' ') pointed(cross);
  else if (event.key === 'b' || event.key === 'B') {
    if (corner) { told(corner, cross); corner = null; } else { corner = [...cross]; show('.band', corner, cross); }
  } else if (event.key === 'Escape') { corner = null; hide('.band'); }
  else return;
  event.preventDefault();
  show('.cross', cross, cross);
});
element.addEventListener('blur', () => hide('.cross'));
element.addEventListener('dragstart', (event) => event.preventDefault());
