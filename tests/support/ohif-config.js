window.config = {
  routerBasename: "/",
  extensions: [],
  modes: [],
  showStudyList: true,
  investigationalUseDialog: { option: "never" },
  // A Segmentation or a report opens without "Do you want to open this?".
  disableConfirmationPrompts: true,
  // Without a handler of ours OHIF calls one that is not there, when an image is given up.
  httpErrorHandler: () => {},
  showWarningMessageForCrossOrigin: false,
  maxNumberOfWebWorkers: 2,
  defaultDataSourceName: "pacs",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "pacs",
      configuration: {
        friendlyName: "PACS",
        name: "pacs",
        wadoUriRoot: "/dicom-web",
        qidoRoot: "/dicom-web",
        wadoRoot: "/dicom-web",
        qidoSupportsIncludeField: false,
        imageRendering: "wadors",
        thumbnailRendering: "wadors",
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        dicomUploadEnabled: false,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
