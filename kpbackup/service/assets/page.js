// A click on the line asks for that moment; a pointer over it says which one it is. Everything works without this file.
"use strict";
const line = document.getElementById("line");
const field = document.getElementById("at");
if (line && field) {
  const moment = (event) => {
    const box = line.getBoundingClientRect();
    const place = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const begin = Number(line.dataset.begin), end = Number(line.dataset.end);
    return new Date(Math.floor(begin + place * (end - begin)) * 1000).toISOString().replace(".000Z", "Z");
  };
  line.addEventListener("click", (event) => {
    if (event.detail === 0) return; // by keyboard: the link's own moment
    event.preventDefault();
    field.value = moment(event);
    field.form.submit();
  });
}
