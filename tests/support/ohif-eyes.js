// What a test asks of the page; there before the page's own scripts. OHIF keeps its services in its React components.
globalThis.eyes = (() => {
  let found = null;
  const services = () => {
    let node = document.querySelector("#root > *");
    for (; node && !found; node = node.firstElementChild) {
      const key = Object.keys(node).find((name) => name.startsWith("__reactFiber"));
      for (let fiber = key && node[key]; fiber && !found; fiber = fiber.return)
        found = fiber.memoizedProps?.servicesManager?.services ?? null;
    }
    return found;
  };
  const viewport = () => {
    const known = services();
    try {
      const id = known.viewportGridService.getActiveViewportId();
      return known.cornerstoneViewportService.getCornerstoneViewport(id);
    } catch {
      return null; // the page is still being built
    }
  };
  const rectangle = (element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return [x, y, width, height];
  };
  const attributes = (element) =>
    Object.fromEntries([...element.attributes].map(({ name, value }) => [name, value]));
  // Messages vanish, and lie over the picture: their words are kept, and they are put out of sight.
  const said = [];
  const hear = (node) => {
    if (!(node instanceof Element)) return;
    for (const each of [node, ...node.querySelectorAll("*")])
      if (each.matches("[data-sonner-toast], [role=dialog], [role=alertdialog]")) said.push(each);
  };
  new MutationObserver((changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach(hear)))
    .observe(document, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", () => {
    const style = document.head.appendChild(document.createElement("style"));
    style.textContent = "[data-sonner-toaster] { opacity: 0; pointer-events: none }";
  });
  // The viewer keeps a promise's failure from the console.
  const broken = [];
  addEventListener("unhandledrejection", ({ reason }) => broken.push(String(reason?.stack ?? reason)));
  addEventListener("error", ({ message, error }) => broken.push(`${message} ${error?.stack ?? ""}`));
  return {
    // The image in the active viewport, once it is drawn. `layers` counts it and what lies over it.
    shown() {
      const seen = viewport();
      if (!seen?.getCurrentImageId?.() || seen.viewportStatus !== "rendered") return null;
      return {
        index: seen.getCurrentImageIdIndex(),
        images: seen.getImageIds(),
        layers: seen.getActors().length,
        rectangle: rectangle(seen.canvas),
      };
    },
    // What is drawn over the image as lines and text, in pixels of the viewport.
    drawn: () =>
      [...document.querySelectorAll(".svg-layer :is(line, polyline, polygon, rect, circle, ellipse, path, text)")]
        .filter((each) => !each.closest("defs"))
        .map((each) => ({ kind: each.tagName, text: each.textContent, ...attributes(each) })),
    // Names of the segments that the viewer has loaded.
    segments: () =>
      (services()?.segmentationService.getSegmentations() ?? []).flatMap(({ segments }) =>
        Object.values(segments).map(({ label }) => label)),
    // Tool and label of each measurement that the viewer has loaded.
    measurements: () =>
      (services()?.measurementService.getMeasurements() ?? []).map(({ toolName, label }) => [toolName, label]),
    // Entries of the series list: text and place.
    listed: () =>
      [...document.querySelectorAll("[data-cy^=study-browser-thumbnail]")].map((each) => ({
        text: each.innerText,
        rectangle: rectangle(each),
      })),
    // Whatever the viewer has told or asked in passing.
    messages: () => said.map((each) => each.textContent),
    // Promises that nobody kept.
    broken: () => broken,
  };
})();
