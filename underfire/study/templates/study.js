// The pages of a study. The time of an answer runs, on the clock of performance.now(), from the moment its image is painted
// to the key or touch that gives it. The server stores the answer before the next image is shown.
"use strict";

const CROSS = 500; // milliseconds that a cross is shown before an image, so that all annotators look at the same place
const TOLD = 1600; // milliseconds that the right answer of a practice trial is shown
const AGAIN = 2000; // milliseconds until a request is sent once more
const find = (id) => document.getElementById(id);
const sleep = (time) => new Promise((done) => setTimeout(done, time));

// The browser remembers name and token, so that an annotator can go on later; a browser that does not is no problem.
const memory = {
  read() { try { return JSON.parse(localStorage.getItem("underfire-study")); } catch { return null; } },
  write(value) { try { localStorage.setItem("underfire-study", JSON.stringify(value)); } catch { /* private window */ } },
  forget() { try { localStorage.removeItem("underfire-study"); } catch { /* private window */ } },
};

// Send a request. While the server does not answer, say so and send it again, so that no answer is lost.
async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
  };
  for (;;) {
    try {
      const response = await fetch(path, options);
      const found = await response.json();
      find("trouble").textContent = "";
      return { status: response.status, ...found };
    } catch {
      find("trouble").textContent = "The server does not answer. Your last answer is kept on this page and sent again; please leave it open.";
      await sleep(AGAIN);
    }
  }
}

// --- the first page --------------------------------------------------------------------------------------------------

function welcome() {
  const known = memory.read();
  if (known && known.token && known.name) {
    find("who").textContent = known.name;
    find("link").href = "/a/" + encodeURIComponent(known.token);
    find("again").hidden = false;
  }
  // Say what is missing, mark its field, and put the cursor there.
  const refuse = (field, message) => {
    for (const one of [find("consent"), find("name")]) one.setAttribute("aria-invalid", String(one === field));
    find("trouble").textContent = message;
    field.focus();
  };
  find("join").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!find("consent").checked) return refuse(find("consent"), "Tick the box if you agree: nobody takes part without consent.");
    const found = await ask("/api/join", { name: find("name").value, consent: true });
    if (found.error) return refuse(find("name"), found.error[0].toUpperCase() + found.error.slice(1) + ".");
    memory.write({ name: found.name, token: found.token });
    location.href = "/a/" + encodeURIComponent(found.token);
  });
}

// --- the trials ------------------------------------------------------------------------------------------------------

function show(name) {
  for (const screen of document.querySelectorAll(".screen")) screen.hidden = screen.id !== name;
}

// Resolve with the time at which the last change is on the screen: in the second frame after the change.
const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))));

async function load(next) {
  const images = [[next.image, "The image"], [next.map, "What mattered for the program's decision"]];
  return Promise.all(images.filter(([where]) => where).map(async ([where, text]) => {
    const image = new Image();
    image.alt = text;
    image.src = where;
    await image.decode();
    return image;
  }));
}

function pause({ title, text }) {
  find("pause-title").textContent = title;
  find("pause-text").replaceChildren(...text.map((words) => {
    const line = document.createElement("p");
    line.textContent = words;
    return line;
  }));
  show("pause");
  find("pause-title").focus();
  return new Promise((done) => {
    const end = () => {
      removeEventListener("keydown", press);
      find("go").removeEventListener("click", end);
      done();
    };
    const press = (event) => {
      if (event.key !== " " || event.repeat || event.target.closest("details")) return;
      event.preventDefault();
      end();
    };
    addEventListener("keydown", press);
    find("go").addEventListener("click", end);
  });
}

// Resolve with the first answer after the images are painted.
function answer(start) {
  return new Promise((done) => {
    let hidden = document.hidden;
    const hide = () => { hidden = true; };
    const give = (button, event) => {
      const seconds = (event.timeStamp - start) / 1000;
      if (!(seconds > 0)) return;
      find("trial").setAttribute("aria-busy", "true");
      removeEventListener("keydown", press);
      find("trial").removeEventListener("click", touch);
      document.removeEventListener("visibilitychange", hide);
      button.classList.add("given");
      done({ answer: Number(button.dataset.class), seconds, hidden });
    };
    const press = (event) => {
      // Compare the place on the keyboard too: French keyboards give a digit only with shift.
      if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
      const button = [...document.querySelectorAll(".choice")].find((one) => one.dataset.key === event.key || `Digit${one.dataset.key}` === event.code);
      if (button) give(button, event);
    };
    const touch = (event) => {
      const button = event.target.closest(".choice");
      if (button) give(button, event);
    };
    addEventListener("keydown", press);
    find("trial").addEventListener("click", touch);
    document.addEventListener("visibilitychange", hide);
    find("trial").setAttribute("aria-busy", "false");
  });
}

// Show a cross in the middle, and remove everything of the trial before.
function clear() {
  const cross = document.createElement("span");
  cross.className = "cross";
  cross.textContent = "+";
  find("stage").replaceChildren(cross);
  find("told").textContent = find("class").textContent = "";
  explain(null);
  for (const button of document.querySelectorAll(".choice")) button.classList.remove("given");
  show("trial");
  return sleep(CROSS);
}

// Show the legend of the colours, or nothing in its place, so that the image has the same size.
function explain(legend) {
  find("legend").classList.toggle("none", !legend);
  find("scale").className = legend?.signed ? "signed" : "";
  find("low").textContent = legend?.low ?? "";
  find("high").textContent = legend?.high ?? "";
}

async function trial(pictures, name, legend) {
  find("stage").replaceChildren(...pictures);
  explain(legend);
  find("class").textContent = name ? `The program says: ${name}` : "";
  return answer(await painted());
}

// Show the right answer after a practice trial.
async function tell(decision, right) {
  find("told").textContent = `${right ? "Yes" : "No"}, ${document.body.dataset.right}: ${decision}`;
  find("told").className = right ? "told right" : "told wrong";
  await sleep(TOLD);
}

// Delete everything about the annotator, here and on the server.
async function withdraw(place) {
  const found = await ask(place + "/withdraw", {});
  if (found.error) { // somebody has done so already, such as in another window
    find("trouble").textContent = `${found.error}.`;
    return;
  }
  memory.forget();
  find("me").textContent = find("count").textContent = "";
  find("progress").style.width = "0";
  const answers = found.withdrawn === 1 ? "your 1 answer" : `all your ${found.withdrawn} answers`;
  find("withdrawn-text").textContent = `Your name and ${answers} have been deleted.`;
  show("withdrawn");
  find("withdrawn-title").focus();
}

async function trials() {
  const { token, name } = document.body.dataset;
  const place = "/api/" + encodeURIComponent(token);
  memory.write({ token, name });
  for (const button of document.querySelectorAll(".withdraw")) button.addEventListener("click", () => withdraw(place));
  let next = await ask(place + "/next");
  let first = true;
  while (!next.done && !next.error) {
    const images = load(next).catch(() => null);
    find("count").textContent = next.count;
    find("progress").style.width = `${(100 * next.trial) / next.total}%`;
    const back = { title: "Welcome back", text: ["You go on where you left off.", next.description] };
    const before = next.before || (first ? back : null);
    first = false;
    if (before) await pause(before);
    const [pictures] = await Promise.all([images, clear()]);
    if (!pictures) { // the server did not answer while the pictures were fetched
      find("trouble").textContent = "A picture did not arrive; it is fetched again.";
      await sleep(AGAIN);
      next = await ask(place + "/next");
      continue;
    }
    const given = await trial(pictures, next.class, next.legend);
    const reply = await ask(place + "/answer", { trial: next.trial, ...given });
    if (reply.decision) await tell(reply.decision, reply.right);
    next = reply.next || reply; // the server refuses an answer that comes twice, and sends the current trial
  }
  if (next.error) {
    find("trouble").textContent = `${next.error}. Load the page again to go on.`;
    return;
  }
  find("count").textContent = "";
  find("progress").style.width = "100%";
  find("code").textContent = next.code;
  show("end");
  find("end-title").focus();
}

({ welcome, trials })[document.body.dataset.page]?.();
