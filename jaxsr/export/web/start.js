const $ = id => document.getElementById(id), META = JSON.parse($('meta').textContent);
