// Keeps the status page current: replaces its parts with those that the daemon renders anew.
"use strict";
(() => {
  const lost = document.getElementById("lost");
  const parts = ["numbers", "charts"].filter((name) => document.getElementById(name));
  if (!parts.length || !window.EventSource) return;

  const replace = (name, html) => {
    const part = document.getElementById(name);
    // What was opened stays open, and what has the focus keeps it.
    const open = [...part.querySelectorAll("details[open]")].map((details) => details.id);
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = html;
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    if (focused) document.getElementById(focused)?.focus();
  };

  const events = new EventSource("/live" + location.search);
  parts.forEach((name) => events.addEventListener(name, (event) => replace(name, JSON.parse(event.data))));
  events.onopen = () => { lost.hidden = true; };
  events.onerror = () => {
    if (lost.hidden) lost.textContent = `No connection to the daemon since ${new Date().toLocaleTimeString()}; trying again. These are the last numbers.`;
    lost.hidden = false;
    // A browser gives up after some answers, for example while a proxy has no daemon behind it.
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  document.body.dataset.live = "on";
})();
