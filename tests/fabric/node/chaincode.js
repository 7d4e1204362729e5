// The functions of tests/support/kv_chaincode.py, by Fabric's own library for Node.
'use strict';
const shim = require('fabric-shim');

class Kv {
  async Init() {
    return shim.success();
  }

  async Invoke(stub) {
    const { fcn, params } = stub.getFunctionAndParameters();
    switch (fcn) {
      case 'put':
        await stub.putState(params[0], Buffer.from(params[1]));
        return shim.success(Buffer.from(params[1]));
      case 'get':
        return shim.success(Buffer.from(await stub.getState(params[0])));
      case 'emit':
        await stub.putState(`emitted-${params[0]}`, Buffer.from(params[1]));
        stub.setEvent(params[0], Buffer.from(params[1]));
        return shim.success();
      case 'transient':
        return shim.success(Buffer.from(stub.getTransient().get(params[0])));
      case 'who':
        return shim.success(Buffer.from(stub.getCreator().mspid));
      default:
        return shim.error(`no function ${fcn}`);
    }
  }
}

shim.server(new Kv(), { ccid: process.argv[3], address: process.argv[2] }).start().then(() => console.log('listening'));
