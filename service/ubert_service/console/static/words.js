// Tokens put together to words again, each with the stars that its tokens contribute.

export const LETTER = /[\p{L}\p{N}]/u;

export function words({ text, token_spans: spans, token_contributions: contributions }) {
  if (text === null || !spans || !contributions.length) return []; // not read: it counts by its rating alone
  const letters = Array.from(text);
  const found = [];
  spans.forEach(([start, end], index) => {
    if (start === end) return; // [CLS] and [SEP] stand for no text
    const last = found.at(-1);
    const continued = last?.end === start && LETTER.test(letters[start - 1]) && LETTER.test(letters[start]);
    if (continued) {
      last.end = end;
      last.stars += contributions[index];
    } else found.push({ start, end, stars: contributions[index] });
  });
  for (const word of found) word.text = letters.slice(word.start, word.end).join("");
  return found;
}

// Where states are pooled, a mark or a label covers several words: quoted, or nobody could tell where one ends.
export const quoted = (text) => (/\s/.test(text) ? `“${text}”` : text);

// One label for each row of a review's states, the two that stand for no text included.
export function tokenLabels({ text, token_spans: spans }, rows) {
  if (text === null || !spans) return Array.from({ length: rows }, (_, index) => `token ${index + 1}`);
  const letters = Array.from(text);
  return spans.map(([start, end], index) => (start === end ? (index === 0 ? "[CLS]" : "[SEP]") : letters.slice(start, end).join("")));
}
