// Tokens put together to words again, each with the stars that its tokens contribute.

export const LETTER = /[\p{L}\p{N}]/u;
const END_OF_THE_ONE_BEFORE = /^[\s\p{P}]+(?=.*[\p{L}\p{N}])/su;

export const MARKS = ["[CLS]", "[SEP]"]; // of where a review begins and ends

export function words({ text, token_spans: spans, token_contributions: contributions }) {
  if (text === null || !spans || !contributions.length) return []; // not read by the network
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
  return found.map((word) => {
    const read = letters.slice(word.start, word.end).join("");
    const text = withoutEndOfTheOneBefore(read);
    return { ...word, text, start: word.start + Array.from(read).length - Array.from(text).length };
  });
}

// Where states are pooled, a passage may begin with the full stop of the one before.
const withoutEndOfTheOneBefore = (text) => text.replace(END_OF_THE_ONE_BEFORE, "");

export const isPassage = (text) => /\s/.test(text);

// Where states are pooled, a mark or a label covers several words: quoted, or nobody could tell where one ends.
export const quoted = (text) => (isPassage(text) ? `“${text}”` : text);

// One label for each row of a review's states, the two that stand for no text included.
export function tokenLabels({ text, token_spans: spans }, rows) {
  if (text === null || !spans) return Array.from({ length: rows }, (_, index) => `#${index + 1}`);
  const letters = Array.from(text);
  return spans.map(([start, end], index) => {
    if (start === end) return MARKS[index === 0 ? 0 : 1];
    return withoutEndOfTheOneBefore(letters.slice(start, end).join("")).trimEnd();
  });
}
