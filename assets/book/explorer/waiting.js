/* Work that waits: until changes have stopped, or until the browser has nothing else to do.
 *
 * Uses: nothing.
 */
"use strict";

(function () {
  function afterPause(milliseconds, task) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(task, milliseconds);
    };
  }

  const whenIdle = () =>
    new Promise((resolve) => {
      if (window.requestIdleCallback) window.requestIdleCallback(resolve, { timeout: 300 });
      else setTimeout(resolve, 20);
    });

  window.Waiting = { afterPause, whenIdle };
})();
