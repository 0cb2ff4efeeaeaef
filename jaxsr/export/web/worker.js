// Runs the network on tiles, so that the page stays responsive.
let session;

onmessage = async ({data}) => {
  try {
    if (data.runtime) {
      // A module made here: under file://, one that the page made would have another origin.
      const code = new Blob([data.runtime], {type: 'text/javascript'});
      const ort = self.ort = await import(URL.createObjectURL(code));
      ort.env.wasm.wasmBinary = data.wasm;
      ort.env.wasm.numThreads = data.threads;
      ort.env.logLevel = 'error';
      session = await ort.InferenceSession.create(data.model, {executionProviders: ['wasm']});
      postMessage({ready: true});
    } else {
      const lr = new self.ort.Tensor('float32', data.lr, data.shape);
      const {sr} = await session.run({lr});
      postMessage({sr: sr.data}, [sr.data.buffer]);
    }
  } catch (error) {
    postMessage({error: String(error && error.message || error)});
  }
};
