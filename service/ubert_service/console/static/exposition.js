// Prometheus's text format, as far as the service writes it: samples with labels, and histograms put together again.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function samples(text) {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = line.match(LINE) ?? [];
    if (line.startsWith("#") || name === undefined) return [];
    const of = Object.fromEntries([...labels.matchAll(LABEL)].map(([, label, given]) => [label, given]));
    return [{ name, labels: of, value: value === "+Inf" ? Infinity : Number(value) }];
  });
}

// By the value of `label`: how many observations, their sum, and how many fell into each bucket.
export function histograms(all, name, label) {
  const found = new Map();
  const of = (sample) => {
    const key = sample.labels[label] ?? "";
    if (!found.has(key)) found.set(key, { key, count: 0, sum: 0, buckets: [] });
    return found.get(key);
  };
  for (const sample of all) {
    if (sample.name === `${name}_count`) of(sample).count += sample.value;
    else if (sample.name === `${name}_sum`) of(sample).sum += sample.value;
    else if (sample.name === `${name}_bucket`) {
      const upTo = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le);
      of(sample).buckets.push({ upTo, below: sample.value });
    }
  }
  for (const histogram of found.values()) {
    histogram.buckets.sort((one, other) => one.upTo - other.upTo);
    histogram.buckets.forEach((bucket, index, buckets) => { bucket.count = bucket.below - (buckets[index - 1]?.below ?? 0); });
  }
  return [...found.values()].filter((histogram) => histogram.count > 0);
}

// Upper edge of the bucket that holds the quantile: the true value is at most that.
export const atMost = (histogram, share) =>
  histogram.buckets.find((bucket) => bucket.below >= share * histogram.count)?.upTo ?? Infinity;
