// Sets light or dark before the page is painted. Its key and attribute are Mantine's.
(function () {
  var wish = null;
  try {
    wish = localStorage.getItem('culvert-theme');
  } catch {
    // Without storage the system's wish counts.
  }
  var dark = wish === 'dark' || (wish !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.setAttribute('data-mantine-color-scheme', dark ? 'dark' : 'light');
})();
