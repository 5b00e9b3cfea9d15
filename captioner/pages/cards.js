// Searches and sorts the cards of a page. Each word must be somewhere in a card.
const list = document.getElementById("cards");
const given = [...list.children];
const search = document.getElementById("search");
const sort = document.getElementById("sort");
const shown = document.getElementById("shown");
const texts = new Map(given.map(card => [card, card.textContent.toLowerCase()]));
function update() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const card of given) {
    card.hidden = !words.every(word => texts.get(card).includes(word));
    count += !card.hidden;
  }
  shown.textContent = count + " shown";
}
function order() {
  const { key, sign } = sort.selectedOptions[0].dataset;
  const cards = [...given];
  if (key) cards.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
  list.append(...cards);
}
search.addEventListener("input", update);
sort.addEventListener("change", order);
document.querySelector("form").addEventListener("submit", e => e.preventDefault());
order();
update();
