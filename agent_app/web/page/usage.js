// What the key has used this month: a budget, totals, and by feature.

import { $, make } from "./dom.js";
import { askJson } from "./server.js";
import { complain } from "./turn.js";

const number = new Intl.NumberFormat(undefined);
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

export async function openUsage() {
  try {
    const usage = await askJson("/usage");
    $("usage-body").replaceChildren(...render(usage));
    if (!$("usage").open) $("usage").showModal();
  } catch (error) {
    complain(error);
  }
}

function render({ month, totals, budget, usage }) {
  const parts = [make("p", { className: "month" }, monthName(month)), figures(totals)];
  const limit = budget.hard || budget.medium || budget.soft;
  if (limit) parts.push(bar(totals.total_tokens, budget, limit));
  else parts.push(make("p", { className: "soft" }, "This key has no budget."));
  if (usage.length) parts.push(table(byFeature(usage)));
  else parts.push(make("p", { className: "soft" }, "Nothing was used yet."));
  return parts;
}

function monthName(month) {
  const first = new Date(`${month}-01T12:00:00Z`);
  return first.toLocaleDateString(undefined, { month: "long", year: "numeric", timeZone: "UTC" });
}

function figures(totals) {
  const list = make("dl", { className: "figures" });
  const rows = [
    ["Tokens", totals.total_tokens],
    ["of questions", totals.prompt_tokens],
    ["of answers", totals.completion_tokens],
    ["Requests", totals.requests],
  ];
  for (const [name, value] of rows) {
    list.append(make("div", {}, make("dt", {}, name), make("dd", {}, number.format(value))));
  }
  return list;
}

function bar(used, budget, limit) {
  const share = Math.round((100 * used) / limit);
  const text = `${number.format(used)} of ${number.format(limit)} tokens, ${share} %`;
  const label = make("label", { htmlFor: "budget" }, make("span", {}, "Budget"), make("span", {}, text));
  const meter = make("meter", { id: "budget", min: 0, max: limit, value: Math.min(used, limit) });
  meter.setAttribute("aria-valuetext", text);
  // Its colour tells when the key is beyond what was asked of it; the words below say the same.
  meter.high = budget.soft || budget.medium || limit;
  meter.optimum = 0;
  const box = make("div", { className: "budget" }, label, meter);
  const said = verdict(used, budget);
  if (said) box.append(make("p", { className: "complaint" }, said));
  return box;
}

function verdict(used, { soft, medium, hard }) {
  if (hard && used >= hard) return "The budget is spent: new questions are refused until next month.";
  if (medium && used >= medium) return `Beyond the budget of ${number.format(medium)} tokens.`;
  if (soft && used >= soft) return `Beyond the soft budget of ${number.format(soft)} tokens.`;
  return "";
}

function byFeature(rows) {
  const sums = new Map();
  for (const row of rows) {
    const name = row.feature || "chat";
    const sum = sums.get(name) || { requests: 0, tokens: 0, seconds: 0 };
    sum.requests += row.requests;
    sum.tokens += row.prompt_tokens + row.completion_tokens;
    sum.seconds += row.engine_seconds;
    sums.set(name, sum);
  }
  return [...sums].sort(([, one], [, other]) => other.tokens - one.tokens);
}

function table(features) {
  const heads = ["Feature", "Requests", "Tokens", "Engine seconds"];
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const rows = features.map(([name, { requests, tokens, seconds }]) =>
    make("tr", {},
      make("th", { scope: "row" }, name),
      ...[number.format(requests), short.format(tokens), seconds.toFixed(1)]
        .map((text) => make("td", {}, text))));
  return make("table", {},
    make("caption", { className: "unseen" }, "Used by feature"),
    make("thead", {}, head), make("tbody", {}, ...rows));
}
