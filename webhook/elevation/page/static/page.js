"use strict";
// One page, one proof: talks to the page's own origin and to the authenticator, and to nothing else.
(() => {
  const main = document.querySelector("main");
  const { kind, base } = main.dataset;
  let options = JSON.parse(main.dataset.options);
  const byId = (id) => document.getElementById(id);

  const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const toText = (buffer) =>
    btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join(""))
      .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const withId = (one) => ({ ...one, id: toBytes(one.id) });

  const say = (text) => { byId("status").textContent = text; };
  const complain = (text) => {
    byId("problem").textContent = text.charAt(0).toUpperCase() + text.slice(1);
    say("");
  };

  const post = async (action, body) => {
    const answer = await fetch(base + action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      credentials: "same-origin",
      redirect: "error",
    });
    const found = await answer.json();
    if (!answer.ok) {
      const error = new Error(found.message || "that did not work");
      error.isOver = answer.status === 410 || answer.status === 403;
      throw error;
    }
    return found;
  };

  const asked = async () => {
    if (kind === "enrol") {
      const publicKey = {
        ...options,
        challenge: toBytes(options.challenge),
        user: withId(options.user),
        excludeCredentials: options.excludeCredentials.map(withId),
      };
      const made = await navigator.credentials.create({ publicKey });
      const { response } = made;
      return {
        ...common(made),
        response: {
          clientDataJSON: toText(response.clientDataJSON),
          attestationObject: toText(response.attestationObject),
          transports: response.getTransports ? response.getTransports() : [],
        },
      };
    }
    const publicKey = {
      ...options,
      challenge: toBytes(options.challenge),
      allowCredentials: options.allowCredentials.map(withId),
    };
    const given = await navigator.credentials.get({ publicKey });
    const { response } = given;
    return {
      ...common(given),
      response: {
        clientDataJSON: toText(response.clientDataJSON),
        authenticatorData: toText(response.authenticatorData),
        signature: toText(response.signature),
        userHandle: response.userHandle ? toText(response.userHandle) : null,
      },
    };
  };
  const common = (credential) => ({
    id: credential.id,
    rawId: toText(credential.rawId),
    type: credential.type,
    clientExtensionResults: credential.getClientExtensionResults(),
  });

  const end = (title, text) => {
    document.title = title + " · kube-stepup";
    for (const one of document.querySelectorAll("main > section, main > dl, main > p:not([id]), .buttons")) one.remove();
    const heading = document.querySelector("h1");
    heading.textContent = title;
    heading.tabIndex = -1;
    heading.focus();
    say(text);
  };

  const whyNot = (error) => {
    if (error.name === "NotAllowedError") return "Nothing was proven: it was cancelled, or took too long. Try again.";
    if (error.name === "InvalidStateError") return "This authenticator is enrolled already. Take another one.";
    if (error.name === "SecurityError") return "This page is not where passkeys of this cluster are used.";
    return error.message;
  };

  const go = async () => {
    const buttons = document.querySelectorAll(".buttons button");
    byId("problem").textContent = "";
    for (const one of buttons) one.disabled = true;
    say("Waiting for your authenticator…");
    try {
      const answer = await post(kind === "enrol" ? "register" : "answer", { credential: await asked() });
      if (answer.accepted) {
        end("Done", "Go back to your terminal: it goes on by itself. You can close this page.");
        return;
      }
      options = answer.options || {};
      if (!options.challenge) {
        end("That did not work", "");
        complain(answer.message + " Ask again at your terminal.");
        return;
      }
      complain(answer.message);
    } catch (error) {
      if (error.isOver) end("Nothing to do here", "");
      complain(whyNot(error));
    }
    for (const one of buttons) one.disabled = false;
  };

  const decline = async () => {
    try {
      await post("decline", {});
      end("Refused", "Nothing was proven, and the request is revoked. Tell your operators that somebody sent you this link.");
    } catch (error) {
      complain(error.message);
    }
  };

  const revoke = async (button) => {
    button.disabled = true;
    try {
      await post("revoke", { name: button.dataset.revoke });
      button.replaceWith("Revoked");
      say("Revoked.");
    } catch (error) {
      button.disabled = false;
      complain(error.message);
    }
  };

  const open = async () => {
    const secret = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    if (!secret) {
      end("Nothing to do here", "");
      complain("This page was opened already, or its link is not whole. Ask again at your terminal.");
      return;
    }
    try {
      await post("open", { secret });
      location.replace(location.pathname);
    } catch (error) {
      end("Nothing to do here", "");
      complain(error.message);
    }
  };

  for (const one of document.querySelectorAll("time[data-time]")) {
    const at = new Date(one.dateTime);
    if (!Number.isNaN(at.getTime())) one.textContent = at.toLocaleString();
  }
  byId("go")?.addEventListener("click", go);
  byId("decline")?.addEventListener("click", decline);
  for (const one of document.querySelectorAll("[data-revoke]")) one.addEventListener("click", () => revoke(one));
  if (kind === "opening") open();
  else if (byId("go") && !window.PublicKeyCredential) {
    byId("go").disabled = true;
    complain("This browser knows no passkeys, or this page is not on a secure origin.");
  }
})();
