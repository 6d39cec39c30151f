"use strict";
// Of a reliability diagram the method chosen in the table beside it is drawn in full, on top of the others.
for (const box of document.querySelectorAll(".reliable")) {
  box.addEventListener("change", (event) => {
    for (const group of box.querySelectorAll("g.method")) {
      const chosen = group.dataset.method === event.target.value;
      group.classList.toggle("chosen", chosen);
      if (chosen) group.parentNode.append(group);
    }
  });
}
