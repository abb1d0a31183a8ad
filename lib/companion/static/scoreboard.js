// Sorting and filtering of the scoreboard by DataTables, offline. Without scripts the plain table stands.
(async () => {
  const bytes = Uint8Array.from(atob(window.datatablesModule), (c) => c.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const { jQuery } = await import(address);
  URL.revokeObjectURL(address);

  const table = jQuery("#scoreboard-table").DataTable({
    paging: false,
    order: [],
    autoWidth: false,
    layout: { topStart: "info", topEnd: "search", bottomStart: null, bottomEnd: null },
    language: {
      search: "Search ",
      info: "_TOTAL_ of _MAX_ rows",
      infoEmpty: "no row",
      infoFiltered: "",
      zeroRecords: "No claim matches these filters.",
    },
  });
  const form = document.getElementById("scoreboard-filters");
  const asked = new URLSearchParams(window.location.search);
  const apply = (select) =>
    table.column(Number(select.dataset.column)).search(
      select.value ? (cell) => cell.trim() === select.value : "",
    );
  for (const select of form.querySelectorAll("select")) {
    const name = select.parentElement.firstChild.textContent.trim().toLowerCase();
    if (asked.has(name)) select.value = asked.get(name);
    apply(select);
    select.addEventListener("change", () => apply(select).draw());
  }
  table.draw();
  form.classList.add("ready");
})();
