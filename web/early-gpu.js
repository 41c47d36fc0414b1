// Opens a device as Python does, with its bridge (web/bridge/gpu.js). early.js imports it if the last load used
// the GPU: a page that does not use it starts without these modules.

import * as canvasRead from "./bridge/canvas-read.js";
import * as device from "./bridge/device.js";
import * as faults from "./bridge/faults.js";
import * as gpu from "./bridge/gpu.js";
import * as handles from "./bridge/handles.js";
import * as pipelines from "./bridge/pipelines.js";
import * as staging from "./bridge/staging.js";
import * as submission from "./bridge/submission.js";
import * as tape from "./bridge/tape.js";

/** @param {{ limits: unknown[], features: unknown[] }} request @returns {Promise<gpu.Gpu>} */
export async function openGpu({ limits, features }) {
  const opened = await device.openDevice(JSON.stringify(limits), JSON.stringify(features));
  return gpu.createGpu(opened, handles, staging, tape, pipelines, submission, faults, canvasRead);
}
