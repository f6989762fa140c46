// What a person types stays, whatever the server answers meanwhile.
// A field that was written in takes nothing that is offered until a click or Enter in its step.
const SKIP = { __type__: 'update' };
const written = new Set(), taken = new Map();
let picked = null;

document.addEventListener('input', (event) => {
  for (let node = event.target; node; node = node.parentElement) if (node.id) written.add(node.id);
}, true);
for (const act of ['pointerdown', 'keydown']) {
  document.addEventListener(act, ({ target, key }) => {
    const step = target.closest('[role="tabpanel"]');
    if (!step || (act === 'keydown' ? key !== 'Enter' : target.matches('input, textarea'))) return;
    for (const id of written) if (step.contains(document.getElementById(id))) written.delete(id);
  }, true);
}

// Each offer is a field's id, what its whole step offers, and which of that is the field's.
window.taken = (offers) => JSON.parse(offers).map(([id, offered, k]) => {
  const told = JSON.stringify(offered);
  const isNew = taken.get(id) !== told;
  taken.set(id, told);
  return isNew && !written.has(id) ? offered[k] : SKIP;
});

// A list tells of input when it is left, too.
window.picked = (name, first, values) => {
  const isNew = name !== (picked ?? first);
  picked = name;
  return values[name].map((value) => (isNew ? value : SKIP));
};
