// The fields for requests. Language and keywords are in both views: what is typed in one is in the other. Whether
// speakers are told apart is asked for files only, where the service can.

const fields = (name) => document.querySelectorAll(`[data-option="${name}"]`);

/** What the fields say, as requests take it. */
export function options() {
  const keywords = fields("keywords")[0].value.split(",").map((one) => one.trim()).filter(Boolean);
  const tellsSpeakers = fields("speakers")[0].value === "apart";
  return { language: fields("language")[0].value, keywords: keywords.slice(0, 100), tellsSpeakers };
}

export function start() {
  for (const name of ["language", "keywords"]) {
    for (const field of fields(name)) {
      field.addEventListener("input", () => fields(name).forEach((other) => (other.value = field.value)));
    }
  }
}

/** Whether the service has a model that tells speakers apart. */
export function showSpeakers(canTell) {
  const [field] = fields("speakers");
  field.closest("label").hidden = !canTell;
  if (!canTell) field.value = "";
}

/** The languages of the served model, as ISO 639-1. */
export function showLanguages(languages) {
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  for (const field of fields("language")) {
    if (field.options.length === languages.length + Number(languages.length > 1)) continue;
    const choices = languages.map((code) => new Option(names.of(code), code));
    field.replaceChildren(...(languages.length > 1 ? [new Option("Detected", ""), ...choices] : choices));
  }
}
