// What is drawn over a photo, pixel by pixel. A layer gives for each pixel a colour and how opaque it is.

const facts = JSON.parse(document.getElementById("facts").textContent);
const IGNORE = 255;
const COLOURS = {
  ood: [213, 94, 0], missed: [0, 114, 178], found: [240, 228, 66], known: [86, 180, 233], ignored: [128, 128, 128],
};
// From dark to light, so that it can be read without colour vision: points of the map "inferno".
const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

function heat(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (HEAT.length - 1);
  const low = Math.floor(at);
  return HEAT[low].map((value, channel) => value + (HEAT[low + 1][channel] - value) * (at - low));
}

const HEAT_TABLE = Array.from({ length: 256 }, (_, level) => heat(level / 255));

// Lines of a hatch: rising for one kind, falling for another, so that they differ without colour.
const RISING = (x, y) => (x + y) % 12 < 3;
const FALLING = (x, y) => (x - y + 12000) % 12 < 3;

async function levelsOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const levels = new Uint8Array(canvas.width * canvas.height);
  for (let at = 0; at < levels.length; at++) levels[at] = pixels[4 * at];
  return { levels, width: canvas.width, height: canvas.height };
}

// The maps of an image, decoded: photo, ids of clusters and classes, label, scores.
async function decoded(view) {
  const found = { view, photo: null, scores: {} };
  if (view.photo) {
    found.photo = new Image();
    found.photo.src = view.photo;
    await found.photo.decode();
  }
  if (view.clusters) found.clusters = await levelsOf(view.clusters.picture);
  if (view.classes) found.classes = await levelsOf(view.classes.picture);
  if (view.label) found.label = await levelsOf(view.label);
  for (const [name, stored] of Object.entries(view.scores ?? {})) {
    found.scores[name] = { ...stored, map: await levelsOf(stored.picture) };
  }
  const grid = found.clusters ?? found.label;
  found.width = found.photo?.naturalWidth ?? grid?.width ?? 640;
  found.height = found.photo?.naturalHeight ?? grid?.height ?? 360;
  return found;
}

// The level of a map at a pixel of the picture, by nearest.
function sampler(map, width, height) {
  if (map.width === width && map.height === height) return (x, y) => map.levels[y * width + x];
  return (x, y) => map.levels[Math.floor((y * map.height) / height) * map.width + Math.floor((x * map.width) / width)];
}

// For each pixel 1 where it is OoD by the mask of the run.
function maskOf(image) {
  const ood = new Set(image.view.clusters.known.filter((cluster) => cluster.ood).map((cluster) => cluster.id));
  const at = sampler(image.clusters, image.width, image.height);
  return chosenPixels(image, (x, y) => ood.has(at(x, y)));
}

function chosenPixels(image, choose) {
  const chosen = new Uint8Array(image.width * image.height);
  for (let y = 0, at = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++, at++) chosen[at] = choose(x, y) ? 1 : 0;
  }
  return chosen;
}

// A score of each pixel as a share between the lowest and the highest it can have, and those two.
function scoreOf(image, name) {
  if (name === "ratio" && image.clusters) {
    const ratios = new Float64Array(256);
    for (const cluster of image.view.clusters.known) ratios[cluster.id] = cluster.ratio;
    const at = sampler(image.clusters, image.width, image.height);
    return { low: 0, high: 1, share: (x, y) => ratios[at(x, y)] };
  }
  const stored = image.scores[name];
  const at = sampler(stored.map, image.width, image.height);
  return { low: stored.low, high: stored.high, share: (x, y) => at(x, y) / 255 };
}

function blend(pixels, at, colour, opacity) {
  for (let channel = 0; channel < 3; channel++) {
    pixels[4 * at + channel] += (colour[channel] - pixels[4 * at + channel]) * opacity;
  }
}

// The outline of the chosen pixels: a light line inside, a dark one around it.
function outline(image, pixels, chosen) {
  const { width, height } = image;
  const differs = (x, y, reach) => {
    const own = chosen[y * width + x];
    for (const [dx, dy] of [[reach, 0], [-reach, 0], [0, reach], [0, -reach]]) {
      const [nx, ny] = [x + dx, y + dy];
      const there = nx >= 0 && ny >= 0 && nx < width && ny < height ? chosen[ny * width + nx] : 0;
      if (there !== own) return true;
    }
    return false;
  };
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!differs(x, y, 2)) continue;
      blend(pixels, at, chosen[at] ? [255, 225, 60] : [10, 10, 10], 1);
    }
  }
}

// Writes numbers at places in an image, readable on every colour.
function numbers(context, image, known, text) {
  const size = Math.max(14, Math.round(image.width / 40));
  context.font = `bold ${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = size / 4;
  context.lineJoin = "round";
  for (const one of known) {
    if (!one.at) continue;
    const [x, y] = [one.at[0] * image.width, one.at[1] * image.height];
    context.strokeStyle = "#000";
    context.strokeText(text(one), x, y);
    context.fillStyle = "#fff";
    context.fillText(text(one), x, y);
  }
}

function paintIds(image, pixels, map, opacity) {
  const at = sampler(map, image.width, image.height);
  for (let y = 0, p = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++, p++) blend(pixels, p, facts.colours[at(x, y)], opacity);
  }
}

// The layers by name: whether an image has it, and how it is drawn. `paint` changes pixels, `write` comes after.
const LAYERS = {
  photo: { title: "Photo", has: () => true, paint: () => {} },
  mask: {
    title: "Mask",
    has: (image) => image.clusters,
    opacity: true,
    paint(image, pixels, state) {
      const mask = maskOf(image);
      for (let at = 0; at < mask.length; at++) if (mask[at]) blend(pixels, at, COLOURS.ood, state.opacity * 0.7);
      outline(image, pixels, mask);
    },
    legend: () => [["ood", "OoD by this run"]],
  },
  errors: {
    title: "Errors",
    has: (image) => image.clusters && image.label,
    opacity: true,
    paint(image, pixels, state) {
      const mask = maskOf(image);
      const label = sampler(image.label, image.width, image.height);
      const ood = chosenPixels(image, (x, y) => label(x, y) === 1);
      for (let y = 0, at = 0; y < image.height; y++) {
        for (let x = 0; x < image.width; x++, at++) {
          const is = label(x, y);
          if (is === IGNORE) blend(pixels, at, COLOURS.ignored, 0.8 * state.opacity);
          else if (is === 1 && mask[at]) blend(pixels, at, COLOURS.found, 0.8 * state.opacity);
          else if (is === 1) blend(pixels, at, FALLING(x, y) ? [255, 255, 255] : COLOURS.missed, state.opacity);
          else if (mask[at]) blend(pixels, at, COLOURS.ood, (RISING(x, y) ? 1 : 0.45) * state.opacity);
        }
      }
      outline(image, pixels, ood);
    },
    legend: () => [
      ["found", "found: OoD, in the mask"], ["missed falling", "missed: OoD, not in the mask"],
      ["ood rising", "false alarm: in the mask, not OoD"], ["ignored", "ignored"],
    ],
  },
  clusters: {
    title: "Clusters",
    has: (image) => image.clusters,
    opacity: true,
    paint: (image, pixels, state) => paintIds(image, pixels, image.clusters, state.opacity),
    write(context, image) {
      numbers(context, image, image.view.clusters.known, (one) => String(one.id));
    },
    legend: () => [],
  },
  score: {
    title: "Score",
    has: (image) => scoreNames(image).length,
    opacity: true,
    threshold: true,
    paint(image, pixels, state) {
      const score = scoreOf(image, state.score);
      for (let y = 0, at = 0; y < image.height; y++) {
        for (let x = 0; x < image.width; x++, at++) {
          blend(pixels, at, HEAT_TABLE[Math.round(score.share(x, y) * 255)], state.opacity);
        }
      }
      outline(image, pixels, above(image, state));
    },
    legend: () => [["heat", "low to high"], ["line", "beyond the threshold"]],
  },
  classes: {
    title: "Classes",
    has: (image) => image.classes,
    opacity: true,
    paint: (image, pixels, state) => paintIds(image, pixels, image.classes, state.opacity),
    write(context, image) {
      numbers(context, image, image.view.classes.known.filter((one) => one.share > 0.01), (one) => String(one.id));
    },
    legend: (image) => image.view.classes.known.filter((one) => one.share > 0.005)
      .sort((a, b) => b.share - a.share)
      .map((one) => [facts.colours[one.id], `${one.id}: ${one.name}, ${(100 * one.share).toFixed(1)} %`]),
  },
  label: {
    title: "Label",
    has: (image) => image.label,
    opacity: true,
    paint(image, pixels, state) {
      const label = sampler(image.label, image.width, image.height);
      for (let y = 0, at = 0; y < image.height; y++) {
        for (let x = 0; x < image.width; x++, at++) {
          const is = label(x, y);
          if (is === 1) blend(pixels, at, COLOURS.ood, (RISING(x, y) ? 1 : 0.6) * state.opacity);
          else if (is === IGNORE) blend(pixels, at, COLOURS.ignored, state.opacity);
        }
      }
      outline(image, pixels, chosenPixels(image, (x, y) => label(x, y) === 1));
    },
    legend: () => [["ood rising", "OoD"], ["ignored", "ignored"]],
  },
};

function scoreNames(image) {
  return [...(image.clusters ? ["ratio"] : []), ...Object.keys(image.scores).filter((name) => name !== "ratio")];
}

// For each pixel 1 where the score is at or above the threshold; of ratio, above it, as the rule says.
function above(image, state) {
  const score = scoreOf(image, state.score);
  const share = (state.threshold - score.low) / (score.high - score.low || 1);
  const strict = state.score === "ratio";
  return chosenPixels(image, (x, y) => (strict ? score.share(x, y) > share : score.share(x, y) >= share));
}
