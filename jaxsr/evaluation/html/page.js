'use strict';
document.documentElement.classList.add('js');
for (const film of document.querySelectorAll('.film')) {
  const stage = film.querySelector('.stage');
  const slider = film.querySelector('.slider');
  const views = [...film.querySelectorAll('.view')];
  const buttons = views.map((view) => {
    const button = document.createElement('button');
    button.textContent = view.dataset.title;
    button.addEventListener('click', () => show(view));
    film.querySelector('.views').append(button);
    return button;
  });
  const show = (shown) => views.forEach((view, i) => {
    view.classList.toggle('shown', view === shown);
    buttons[i].setAttribute('aria-pressed', view === shown);
  });
  const zoom = document.createElement('button');
  zoom.textContent = '4x';
  const enlarge = (x, y) => {
    stage.style.setProperty('--x', `${x}%`);
    stage.style.setProperty('--y', `${y}%`);
    zoom.setAttribute('aria-pressed', stage.classList.toggle('zoomed'));
  };
  zoom.setAttribute('aria-pressed', false);
  zoom.title = 'enlarge the middle; a double-click enlarges any place';
  zoom.addEventListener('click', () => enlarge(50, 50));
  film.querySelector('.views').append(zoom);
  stage.addEventListener('dblclick', (event) => {
    const box = stage.getBoundingClientRect();
    enlarge(100 * (event.clientX - box.left) / box.width, 100 * (event.clientY - box.top) / box.height);
  });
  const move = () => stage.style.setProperty('--cut', `${slider.value}%`);
  slider.addEventListener('input', move);
  for (const side of ['left', 'right']) {
    const menu = film.querySelector(`.${side}`);
    const choose = () => film.querySelectorAll('.version').forEach((version) => {
      version.classList.toggle(`on-${side}`, version.dataset.version === menu.value);
    });
    menu.addEventListener('change', choose);
    choose();
  }
  for (const box of film.querySelectorAll('.switch')) {
    const toggle = () => film.querySelectorAll('img.overlay').forEach((overlay) => {
      if (overlay.dataset.overlay === box.dataset.overlay) overlay.hidden = !box.checked;
    });
    box.addEventListener('change', toggle);
    toggle();
  }
  show(views[0]);
  move();
}
