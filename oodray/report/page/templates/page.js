(() => {
"use strict";
{% include "layers.js" %}
{% include "view.js" %}
{% include "gallery.js" %}
{% include "charts.js" %}
})();
